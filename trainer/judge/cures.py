"""Why each finding of health.py matters, and what usually helps."""

from __future__ import annotations

ADVICE: dict[str, tuple[str, str]] = {  # finding -> why it matters, what usually helps
    "not_finite": (
        "once a weight is NaN or infinite, every later step is",
        "a smaller optimizer.lr, clip_norm=1, schedule.warmup=1",
    ),
    "vanishing_gradients": (
        "the lower layers get hardly any gradient, so they stay as they were drawn",
        "model.batchnorm=true, model.activation=relu with model.init=he_normal, or fewer layers",
    ),
    "exploding_gradients": (
        "one step that suits the upper layers destroys the lower ones",
        "model.init_scale=1, model.init=he_normal (relu) or glorot_uniform (tanh), model.batchnorm=true, clip_norm=1",
    ),
    "dead_units": (
        "a unit that is flat on every example gets no gradient and never recovers",
        "a smaller optimizer.lr, model.bias_init=0, model.init=he_normal, or model.activation=gelu",
    ),
    "saturated_units": (
        "in the flat part of its activation a unit passes hardly any gradient on",
        "model.init=glorot_uniform with model.init_scale=1, normalised inputs, a smaller optimizer.lr, or "
        "model.activation=relu",
    ),
    "no_gradient": (
        "it stays as it was initialised: the loss does not depend on it",
        "check that forward uses it and does not detach what it computes",
    ),
    "loss_at_start": (
        "a fresh network should guess; the first steps only repair its output layer",
        "model.init_scale=1, model.bias_init=0, another model.init, or targets of a usual scale",
    ),
    "inputs_not_normalised": (
        "initialisations and learning rates are made for inputs of about mean 0 and standard deviation 1",
        "data.normalisation=standard",
    ),
    "learning_rate_too_high": (
        "steps jump over what they should descend into",
        "optimizer.lr a tenth of it, schedule.warmup=1, or clip_norm=1",
    ),
    "learning_rate_too_low": (
        "the weights end about where they were drawn",
        "ten times the optimizer.lr, no tiny clip_norm, or more epochs",
    ),
    "weight_decay_dominates": (
        "the weights are pulled to zero faster than the loss can hold them",
        "a hundredth of the optimizer.weight_decay",
    ),
    "oscillation": (
        "steps go back and forth across a valley instead of along it",
        "a third of the optimizer.lr, less optimizer.momentum, or schedule=cosine",
    ),
    "one_class": (
        "such a network ignores its inputs",
        "look at the labels and at how often each class occurs; a smaller optimizer.lr",
    ),
    "labels_unrelated": (
        "what it learns by heart says nothing about other examples",
        "check that inputs and labels belong together: order, shuffling, data.label_noise",
    ),
    "loss_does_not_move": (
        "nothing is learned",
        "check labels and loss; overfit one batch first: check.one_batch=true",
    ),
    "one_batch": (
        "a network that cannot fit one batch cannot fit the data: the fault is in the model, loss or optimizer",
        "another optimizer.lr; look for a wrong loss, a detached or saturated layer, an output that is squashed",
    ),
    "wrong_gradient": (
        "backward does not compute the derivative of forward, so steps do not go downhill",
        "check custom autograd functions, in-place changes and .detach() in this part of the module",
    ),
    "unregistered_layers": (
        "no optimizer trains them, and no checkpoint holds them",
        "nn.ModuleList, nn.ModuleDict or nn.ParameterList in their place",
    ),
    "unsaved_state": (
        "a run that is killed goes on without it, and a checkpoint predicts something else",
        "self.register_buffer(NAME, TENSOR) in __init__ for what forward keeps",
    ),
    "random_evaluation": (
        "every loss in evaluation mode, and what is concluded from it, depends on chance",
        "nn.Dropout, or F.dropout(x, training=self.training)",
    ),
    "softmax_twice": (
        "cross-entropy takes the softmax itself, so gradients are squashed twice",
        "to return what goes into softmax (logits)",
    ),
    "not_finite_at_start": (
        "no step can mend what forward or the loss gives for the weights as they were drawn",
        "to look for log, sqrt, division or overflow in forward and loss, and for NaN in the inputs",
    ),
    "inputs_constant": (
        "a network can only give all of them the same answer",
        "to look at how the inputs are read: a column of zeros, one row repeated",
    ),
    "targets_not_normalised": (
        "initialisations and learning rates are made for targets of about mean 0 and standard deviation 1",
        "to subtract the targets' mean and divide by their standard deviation",
    ),
    "bottleneck": (
        "what does not fit through it cannot be learned above it",
        "a larger model.width",
    ),
    "dropout_too_high": (
        "the loss then follows the noise, and the network learns little or nothing",
        "model.dropout=0.2, model.input_dropout=0, or fewer layers",
    ),
    "schedule_ends_early": (
        "the rest of the run changes nothing",
        "schedule=cosine, or one that lasts: step_size and milestones count epochs, gamma is the factor of a drop",
    ),
    "momentum_too_high": (
        "steps add up over 1 / (1 - momentum) of them, and run far past the valley",
        "optimizer.momentum=0.9",
    ),
    "batch_too_small": (
        "each step follows one or two examples, too far for the others",
        "data.batch_size=32, or a tenth of the optimizer.lr",
    ),
    "too_few_steps": (
        "each step can only be so long",
        "a smaller data.batch_size, accumulate=1, or more epochs",
    ),
    "norm_without_statistics": (
        "it normalises nothing, neither in training nor afterwards",
        "to leave out .eval() in forward and train(), or the layer",
    ),
    "squashed_outputs": (
        "the loss wants any number there, and takes its own sigmoid or softmax where it needs one",
        "to return what goes into the last activation",
    ),
}

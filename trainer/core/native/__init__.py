"""A step of built-in networks on a CPU in C++: which runs it serves (choice), its library, and a stack's own (step)."""

#include <nanobind/nanobind.h>

NB_MODULE(_native, module) { module.doc() = "DeltaRNN's native core."; }

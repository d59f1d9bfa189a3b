// The part of exllamav2's extension that runs on the CPU, for tests without a GPU.
#include <pybind11/stl.h>
#include <torch/extension.h>

#include "cpp/generator.h"
#include "ext_sampling.h"

// As in ext_cache.cpp, which needs CUDA for the rest of it.
static int count_match(torch::Tensor held, torch::Tensor wanted, int held_max) {
    const int64_t* left = held.data_ptr<int64_t>();
    const int64_t* right = wanted.data_ptr<int64_t>();
    const int count = std::min<int64_t>(held_max, wanted.size(1));
    int match = 0;
    while (match < count && left[match] == right[match]) match++;
    return match;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("partial_strings_match", &partial_strings_match);
    m.def("count_match", &count_match);
    m.def("apply_rep_penalty", &apply_rep_penalty);
    m.def("sample_basic", &sample_basic);
    m.def("logit_filter_exclusive", &logit_filter_exclusive);
    m.def("fast_fill_cpu_ones_bool", &fast_fill_cpu_ones_bool);
    m.def("fast_fadd_cpu", &fast_fadd_cpu);
}

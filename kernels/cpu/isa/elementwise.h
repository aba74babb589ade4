// Entries of the table of an instruction set: conversion of 16-bit floats and vector functions over arrays.
#pragma once

#include <stdint.h>

namespace cambium::kernels::cpu {

/// n elements each; x and out do not overlap or are equal. 16-bit numbers are passed as their bits.
struct ElementwiseTable {
  void (*bf16_to_float)(float* out, const uint16_t* x, int64_t n);
  void (*f16_to_float)(float* out, const uint16_t* x, int64_t n);
  void (*float_to_bf16)(uint16_t* out, const float* x, int64_t n);
  void (*float_to_f16)(uint16_t* out, const float* x, int64_t n);
  void (*exp)(float* out, const float* x, int64_t n);
  void (*log)(float* out, const float* x, int64_t n);
  void (*tanh)(float* out, const float* x, int64_t n);
  void (*erf)(float* out, const float* x, int64_t n);
  void (*sigmoid)(float* out, const float* x, int64_t n);
  void (*silu)(float* out, const float* x, int64_t n);
  void (*gelu_erf)(float* out, const float* x, int64_t n);
  void (*gelu_tanh)(float* out, const float* x, int64_t n);
  void (*exp_double)(double* out, const double* x, int64_t n);
};

}  // namespace cambium::kernels::cpu

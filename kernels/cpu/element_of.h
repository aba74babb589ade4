// Which DTypes the vector kernels take, as their own enum.
#pragma once

#include "kernels/cpu/isa/element.h"
#include "kernels/dtype.h"

namespace cambium::kernels::cpu {

/// True for the types that the vector kernels work on; f64 goes through the plain code.
constexpr bool is_vector_type(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }
constexpr Element element_of(DType dtype) { return dtype == DType::bf16 ? Element::bf16 : dtype == DType::f16 ? Element::f16 : Element::f32; }

}  // namespace cambium::kernels::cpu

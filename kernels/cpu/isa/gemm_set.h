// What the files of the matrix product share within an instruction set: the register tile and their functions.
#pragma once

#include "kernels/cpu/isa/gemm.h"
#include "kernels/cpu/isa/simd.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

/// Register tile of C: kRows accumulators of two vectors, as many as registers allow beside two of B and one of A.
template <class T>
struct Tile {
#if defined(__AVX512F__)
  static constexpr int kRows = 14;
#elif defined(__AVX2__)
  static constexpr int kRows = 6;
#else
  static constexpr int kRows = 4;
#endif
  static constexpr int kColumns = 2 * Compute<T>::kLanes;
};

void pack_rows(float*, const GemmSource&, int64_t panels, int64_t base, int64_t extra, int64_t k);
void pack_rows(double*, const GemmSource&, int64_t panels, int64_t base, int64_t extra, int64_t k);
void pack_columns(float*, const GemmSource&, int64_t lines, int64_t k);
void pack_columns(double*, const GemmSource&, int64_t lines, int64_t k);
void gather(float*, int64_t stride, const GemmSource&, int64_t lines, int64_t k);
void gather(double*, int64_t stride, const GemmSource&, int64_t lines, int64_t k);
void block(const GemmBlock<float>&, const GemmTarget<float>&);
void block(const GemmBlock<double>&, const GemmTarget<double>&);
void finish(const float* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<float>&);
void finish(const double* sums, int64_t stride, int64_t rows, int64_t columns, int64_t row, int64_t column, const GemmTarget<double>&);
void dot(float* sums, int64_t row, int64_t column, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k);
void accumulate(float* sums, int64_t row, const float* p, int64_t p_stride, int64_t p_lines, const GemmSource& q, int64_t q_lines, int64_t k);

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA

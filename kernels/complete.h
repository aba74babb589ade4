// A check at compile time that a device's table leaves no kernel out.
#pragma once

#include "kernels/kernels.h"

namespace cambium::kernels {

/// True if no pointer of the table is null. There is one name per row of Kernels, so that a new row does not compile until it is listed.
constexpr bool is_complete(const Kernels& table) {
  const auto all_set = [](auto*... functions) { return ((functions != nullptr) && ...); };
  const auto& [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14, k15, k16, k17, k18, k19,
              k20, k21, k22, k23, k24, k25, k26, k27, k28, k29, k30, k31, k32, k33, k34, k35, k36, k37, k38, k39,
              k40, k41, k42, k43] = table;
  return all_set(k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14, k15, k16, k17, k18, k19,
                 k20, k21, k22, k23, k24, k25, k26, k27, k28, k29, k30, k31, k32, k33, k34, k35, k36, k37, k38, k39,
                 k40, k41, k42, k43);
}

}  // namespace cambium::kernels

// `cambium devices`: what this machine computes with.
#include <iostream>

#include "cli/command.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/parallel.h"

extern "C" char* openblas_get_config();

namespace cambium::cli {

Run add_devices(CLI::App& program) {
  auto options = std::make_shared<SharedOptions>();
  CLI::App& c = *program.add_subcommand("devices", "CPU kernels chosen, BLAS found, CUDA devices");
  add_shared(c, *options, {.model = false, .adapter = false});
  return [options] {
    apply_shared(*options);
    const std::string kernels(kernels::cpu::isa_name(kernels::cpu::active_isa())), blas(openblas_get_config());
    std::cout << "cpu    kernels " << kernels << ", " << kernels::threads() << " threads (CAMBIUM_KERNELS chooses others)\n"
              << "blas   " << blas << " (LAPACK, and the alternative to our own matrix product)\n";
    Json gpus = Json::array();
    for (int i = 0; i < device_count(DeviceType::cuda); ++i) {
      gpus.push_back(describe_device({DeviceType::cuda, i}));
      std::cout << "cuda:" << i << ' ' << gpus.back().get<std::string>() << '\n';
    }
    if (gpus.empty()) std::cout << "cuda   " << cuda_absence() << '\n';
    answer(*options, Json{{"kernels", kernels}, {"threads", kernels::threads()}, {"blas", blas}, {"cuda", gpus}});
    return 0;
  };
}

}  // namespace cambium::cli

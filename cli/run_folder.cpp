// Writing the run folder.
#include "cli/run_folder.h"

#include <ctime>

#include "kernels/cpu/dispatch.h"
#include "kernels/error.h"
#include "kernels/parallel.h"

namespace cambium::cli {

namespace {

/// FNV-1a of a file's bytes: tells whether two runs saw the same data, no more.
std::string hash_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (char block[65536]; file.read(block, sizeof block), file.gcount() > 0;)
    for (std::streamsize i = 0; i < file.gcount(); ++i) hash = (hash ^ static_cast<unsigned char>(block[i])) * 0x100000001b3ULL;
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace

Resident resident_mb() {
  Resident out;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) out.now = std::stod(line.substr(6)) / 1024;
    if (line.starts_with("VmHWM:")) out.peak = std::stod(line.substr(6)) / 1024;
  }
  return out;
}

RunFolder::RunFolder(const std::string& path) {
  if (path.empty()) {
    char name[64];
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    std::strftime(name, sizeof name, "%Y-%m-%d-%H%M%S", &local);
    path_ = std::filesystem::path("runs") / name;
  } else {
    path_ = path;
  }
  check<ConfigError>(!std::filesystem::exists(path_ / "run.json"), "--out: ", path_.string(), " holds a run already: choose another folder");
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  check<FileError>(!error, "--out: cannot make ", path_.string(), ": ", error.message());
  metrics_.open(path_ / "metrics.jsonl", std::ios::trunc);
  check<FileError>(metrics_.good(), "--out: cannot write into ", path_.string());
}

void RunFolder::write_config(Json config, const std::vector<std::string>& data_files) {
  Json hashes = Json::object();
  for (const std::string& file : data_files)
    if (!file.empty()) hashes[file] = hash_of(file);
  config["data_fnv1a64"] = hashes;
  config["environment"] = Json{{"cambium", CAMBIUM_VERSION}, {"kernels", kernels::cpu::isa_name(kernels::cpu::active_isa())}, {"threads", kernels::threads()}, {"cpu", cpu_name()}};
  std::ofstream out(path_ / "run.json");
  out << config.dump(2) << '\n';
  out.close();
  check<FileError>(out.good(), "cannot write ", (path_ / "run.json").string());
}

void RunFolder::add_metrics(const Json& row) {
  metrics_ << row.dump() << std::endl;
  check<FileError>(metrics_.good(), "cannot write ", (path_ / "metrics.jsonl").string(), ": is the disk full?");
}

void RunFolder::add_metrics(const StepMetrics& m) {
  add_metrics(Json{{"step", m.step}, {"epoch", m.epoch}, {"loss", m.loss}, {"lr", m.learning_rate}, {"grad_norm", m.gradient_norm}, {"tokens", m.tokens},
                   {"tokens_per_s", m.tokens_per_second}, {"step_ms", m.step_ms}, {"rss_mb", resident_mb().now}});
}

}  // namespace cambium::cli

// The run folder: run.json, metrics.jsonl, and where the adapter goes.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tensor/json.h"
#include "train/trainer.h"

namespace cambium::cli {

class RunFolder {
 public:
  /// Makes the folder; empty: runs/<time>. ConfigError if a run is in it already, so that none is overwritten.
  explicit RunFolder(const std::string& path);
  const std::filesystem::path& path() const { return path_; }
  /// run.json: the resolved configuration with versions, machine and hashes of the data files.
  void write_config(Json config, const std::vector<std::string>& data_files);
  void add_metrics(const Json& row);  ///< one line, on the disk before this returns
  void add_metrics(const StepMetrics& metrics);

 private:
  std::filesystem::path path_;
  std::ofstream metrics_;
};

/// Peak and current resident memory of this process in MiB.
struct Resident { double now = 0, peak = 0; };
Resident resident_mb();

}  // namespace cambium::cli

// Folders of reference numbers, found by the files that mark them.
#pragma once

#include <string>
#include <vector>

#include "tests/goldens/comparison.h"

namespace cambium::test {

/// Something to be compared: a folder with one of the files that say how.
struct ReferenceFolder {
  std::string folder, name;                                                    ///< where it lies, and its path from the folder that was searched
  std::string mark;                                                            ///< the file: case.json, full_gradients.json, blocks.gguf, ops.json or optim.json
  Comparison (*compare_files)(const std::string& folder, const std::string& name);

  Comparison compare() const;                                                  ///< what cannot be done is a failure, too
};

/// All of them in `root` and below it, sorted by path.
std::vector<ReferenceFolder> reference_folders(const std::string& root);

}  // namespace cambium::test

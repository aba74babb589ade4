// safetensors files: reading by mapping, folders of shards, writing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace cambium {

/// One tensor as the header of its file describes it.
struct SafetensorsInfo {
  std::string name;
  Shape shape;
  std::uint8_t type = 0;                ///< position in the format's list of types
  std::uint64_t begin = 0, end = 0;     ///< bytes, counted from the end of the header

  std::string_view type_name() const;   ///< "F32", "BF16", "F8_E4M3", …
  std::optional<DType> dtype() const;   ///< nothing for types that this library does not compute with
};

/// A file whose whole header has been checked: sizes agree with shapes, ranges follow each other without gap or overlap and end at
/// the end of the file. Values are not looked at; a mapped page is read when it is used.
class SafetensorsFile {
 public:
  /// FileError that says what is wrong, at which byte. `lenient_tail` allows stray bytes behind the last tensor.
  explicit SafetensorsFile(const std::string& path, bool lenient_tail = false);
  /// The same from memory that `keeper` keeps alive; `where` takes the place of the path.
  SafetensorsFile(std::shared_ptr<const void> keeper, std::span<const std::byte> bytes, const std::string& where, bool lenient_tail = false);

  const std::string& path() const { return path_; }
  /// In the order of the data.
  const std::vector<SafetensorsInfo>& tensors() const { return tensors_; }
  std::vector<std::string> names() const;  ///< sorted
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const SafetensorsInfo& info(std::string_view name) const;  ///< NameError
  std::map<std::string, std::string> metadata() const;

  /// Shares the mapped file where the address suits the type, else a copy. NameError; DTypeError for types not computed with.
  Tensor tensor(std::string_view name) const;
  std::span<const std::byte> raw(const SafetensorsInfo& info) const { return data_.subspan(info.begin, info.end - info.begin); }

 private:
  void parse(bool lenient_tail);
  void check_ranges(std::uint64_t data_begin, bool lenient_tail);
  const SafetensorsInfo* find(std::string_view name) const;

  std::string path_;
  std::shared_ptr<const void> keeper_;
  std::span<const std::byte> bytes_, data_;
  std::string_view header_;
  std::size_t metadata_begin_ = 0, metadata_end_ = 0;  // where in the header; read only when somebody asks
  std::vector<SafetensorsInfo> tensors_;
  std::vector<std::uint32_t> by_name_;
};

/// All tensors of a model folder: model.safetensors, or the shards that model.safetensors.index.json names.
class ShardedSafetensors {
 public:
  const std::vector<SafetensorsFile>& files() const { return files_; }
  std::vector<std::string> names() const;  ///< sorted
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const SafetensorsInfo& info(std::string_view name) const { return file_of(name).info(name); }
  Tensor tensor(std::string_view name) const { return file_of(name).tensor(name); }
  const SafetensorsFile& file_of(std::string_view name) const;  ///< NameError

 private:
  friend ShardedSafetensors open_safetensors_folder(const std::string&, bool);
  struct Place {
    std::string name;
    std::uint32_t file = 0;
  };
  const Place* find(std::string_view name) const;
  void add_whole(SafetensorsFile file);
  void add_shards(const std::string& folder, const std::string& index, bool lenient_tail);

  std::vector<SafetensorsFile> files_;
  std::vector<Place> places_;  // sorted by name
};

/// FileError when the folder holds no such model, and when index and shards do not agree. Only plain file names inside the folder
/// are followed. Pickle files (.bin) are never read.
ShardedSafetensors open_safetensors_folder(const std::string& folder, bool lenient_tail = false);

using SafetensorsMetadata = std::map<std::string, std::string>;

/// Writes a file tensor by tensor, each when it is at hand, so that a model larger than the memory can be written.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;
  };
  /// Writes the header. NameError for a name that comes twice, is no valid UTF-8 or is "__metadata__".
  SafetensorsWriter(const std::string& path, std::vector<Entry> entries, const SafetensorsMetadata& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&&) noexcept;

  /// Any order, each once. NameError; ShapeError and DTypeError when `tensor` is not as declared.
  void write(std::string_view name, const Tensor& tensor);
  /// Only now the file gets its name. StateError when a tensor is missing.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The same bytes as the reference library (safetensors 0.8) writes for these tensors.
void save_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const SafetensorsMetadata& metadata = {{"format", "pt"}});

}  // namespace cambium

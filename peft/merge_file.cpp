// The streaming merge: source, plan, writers, and a folder that gets its name at the end.
#include "peft/merge_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "autograd/ops.h"
#include "peft/merge_plan.h"
#include "tensor/atomic_file.h"
#include "tensor/gguf_writer.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kElementsAtOnce = std::int64_t{1} << 20;  // rows that are merged together: 4 MB in float32

/// A folder beside the target that becomes the target, or vanishes.
class FolderInTheMaking {
 public:
  explicit FolderInTheMaking(const std::string& out) : out_(fs::absolute(out).lexically_normal()) {
    if (!out_.has_filename()) out_ = out_.parent_path();
    check<FileError>(!fs::exists(out_) || (fs::is_directory(out_) && fs::is_empty(out_)), out, ": exists already: choose a new folder");
    temporary_ = out_.parent_path() / (".tmp-" + out_.filename().string().substr(0, 200) + "-" + std::to_string(::getpid()));
    std::error_code error;
    fs::create_directories(out_.parent_path(), error);
    if (!error) fs::remove_all(temporary_, error);
    if (!error) fs::create_directory(temporary_, error);
    check<FileError>(!error, out, ": cannot be made: ", error.message());
  }
  ~FolderInTheMaking() {
    std::error_code ignored;
    if (!done_) fs::remove_all(temporary_, ignored);
  }
  FolderInTheMaking(const FolderInTheMaking&) = delete;
  FolderInTheMaking& operator=(const FolderInTheMaking&) = delete;
  std::string file(const std::string& name) const { return (temporary_ / name).string(); }
  void commit() {
    std::error_code error;
    if (fs::exists(out_)) fs::remove(out_, error);
    fs::rename(temporary_, out_, error);
    check<FileError>(!error, out_.string(), ": cannot get its name: ", error.message());
    done_ = true;
  }

 private:
  fs::path out_, temporary_;
  bool done_ = false;
};

void check_space(const fs::path& folder, std::uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  check<FileError>(error || space.available >= bytes, folder.string(), ": needs ", bytes >> 20, " MB, there are ", space.available >> 20, " MB left on this disk");
}

std::int64_t rows_at_once(const Shape& shape) { return std::max<std::int64_t>(1, kElementsAtOnce / std::max<std::int64_t>(1, shape.count() / std::max<std::int64_t>(1, shape.rank() > 0 ? shape[0] : 1))); }

/// Makes each tensor of the result, one at a time.
class Merger {
 public:
  Merger(const MergeSource& source, const MergePlan& plan, const MergeOptions& options, std::uint64_t total_bytes) : source_(source), plan_(plan), options_(options) {
    progress_.total = source.items().size() + plan.added().size();
    progress_.total_bytes = total_bytes;
  }

  Tensor make(std::size_t item, DType dtype) {
    const MergeSource::Item& info = source_.items()[item];
    stop_if_asked();
    if (!plan_.changes(item)) {
      return info.dtype == dtype ? source_.whole(item) : in_pieces(info, dtype, [&](std::int64_t begin, std::int64_t end) { return source_.rows(item, begin, end); });
    }
    TensorEdit edit = plan_.edit(item);
    const std::int64_t rows = rows_at_once(info.shape);
    const auto read = [&](std::int64_t begin, std::int64_t end) { return source_.rows(item, begin, end); };
    ++report.merged;
    return in_pieces(info, dtype, [&](std::int64_t begin, std::int64_t end) {
      const Tensor merged = edit.rows(info.shape, read, begin, end, rows);
      if (options_.safe) check<StateError>(all_finite(merged), source_.where(), ": '", info.name, "': NaN or infinity after merging: an adapter is broken, nothing was written");
      return merged;
    });
  }
  void done(const std::string& name, std::uint64_t bytes) {
    ++report.tensors;
    report.bytes += bytes;
    progress_.done = report.tensors;
    progress_.bytes = report.bytes;
    progress_.tensor = name;
    if (options_.progress) options_.progress(progress_);
  }

  MergeReport report;

 private:
  template <class Rows>
  Tensor in_pieces(const MergeSource::Item& info, DType dtype, Rows&& rows) {
    if (info.shape.rank() == 0) return to_dtype(rows(0, 1), dtype);
    Tensor out = empty(info.shape, dtype);
    const std::int64_t step = rows_at_once(info.shape);
    for (std::int64_t begin = 0; begin < info.shape[0]; begin += step) {
      stop_if_asked();
      const std::int64_t end = std::min(begin + step, info.shape[0]);
      const Tensor piece = to_dtype(rows(begin, end), dtype);
      if (options_.safe && plan_.changes(static_cast<std::size_t>(&info - source_.items().data())))
        check<StateError>(all_finite(piece), source_.where(), ": '", info.name, "': merging overflows ", dtype, ": nothing was written");
      copy_into(slice(out, 0, begin, end), piece);
    }
    return out;
  }
  void stop_if_asked() const { check<StateError>(!options_.stop || !options_.stop(), "merge: stopped: nothing was written"); }

  const MergeSource& source_;
  const MergePlan& plan_;
  const MergeOptions& options_;
  MergeProgress progress_;
};

/// What a tensor of a folder is written as.
DType folder_dtype(const MergeSource& source, const MergePlan& plan, const MergeOptions& options, std::size_t item) {
  const DType stored = source.items()[item].dtype;
  if (!is_float(stored)) return stored;
  if (options.dtype) return *options.dtype;
  // A trained copy of a module stays as exact as it was trained, as PEFT's does.
  return plan.replaces(item) && item_size(stored) == 2 ? DType::f32 : stored;
}

bool goes_along(const fs::path& file) {
  const std::string name = file.filename().string(), extension = file.extension().string();
  if (name.ends_with(".index.json") || name == "config.json" || name == "adapter_config.json" || name.starts_with(".")) return false;
  return extension == ".json" || extension == ".txt" || extension == ".model" || extension == ".jinja" || extension == ".tiktoken";
}

void write_folder(const MergeSource& source, const MergePlan& plan, const std::string& model, const std::string& out, const MergeOptions& options, MergeReport& report) {
  const std::size_t files = source.file_names().size();
  std::vector<std::vector<SafetensorsWriter::Entry>> entries(files);
  std::vector<std::vector<std::size_t>> items(files);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < source.items().size(); ++i) {
    const MergeSource::Item& info = source.items()[i];
    entries[info.file].push_back({info.name, folder_dtype(source, plan, options, i), info.shape});
    items[info.file].push_back(i);
  }
  for (const MergePlan::Added& added : plan.added()) entries.back().push_back({added.name, options.dtype.value_or(DType::f32), added.tensor.shape()});
  for (const auto& shard : entries)
    for (const auto& entry : shard) total += static_cast<std::uint64_t>(entry.shape.count() * item_size(entry.dtype));

  FolderInTheMaking folder(out);
  check_space(fs::absolute(out).parent_path(), total + (total >> 6));
  Merger merger(source, plan, options, total);
  for (std::size_t f = 0; f < files; ++f) {
    SafetensorsWriter writer(folder.file(source.file_names()[f]), entries[f]);
    for (const std::size_t item : items[f]) {
      const std::string& name = source.items()[item].name;
      const Tensor tensor = merger.make(item, folder_dtype(source, plan, options, item));
      writer.write(name, tensor);
      source.forget(item);
      merger.done(name, static_cast<std::uint64_t>(tensor.count() * item_size(tensor.dtype())));
    }
    if (f + 1 == files)
      for (const MergePlan::Added& added : plan.added()) {
        const Tensor tensor = contiguous(to_dtype(added.tensor, options.dtype.value_or(DType::f32)));
        writer.write(added.name, tensor);
        merger.done(added.name, static_cast<std::uint64_t>(tensor.count() * item_size(tensor.dtype())));
      }
    writer.finish();
  }
  report = merger.report;
  for (const std::string& name : source.file_names()) report.files.push_back(name);

  Json config = source.config();
  if (!fs::is_directory(model)) config.erase("_name_or_path");
  bool config_changed = !fs::is_directory(model);
  for (const MergePlan::Added& added : plan.added())
    if (added.unties && config.value("tie_word_embeddings", true)) {
      config["tie_word_embeddings"] = false;
      config_changed = true;
      report.notes.push_back("'" + added.name + "' is no longer tied to the embeddings");
    }
  if (options.dtype || !fs::is_directory(model)) {
    DType main = DType::f32;
    if (options.dtype) main = *options.dtype;
    else
      for (const auto& item : source.items()) if (item.shape.rank() == 2) main = item.dtype;
    config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = std::string(name_of(main));
    config_changed = true;
  }
  if (config_changed) write_file(folder.file("config.json"), config.dump(2) + "\n");
  else fs::copy_file(fs::path(model) / "config.json", folder.file("config.json"));
  if (fs::is_directory(model)) {
    for (const auto& entry : fs::directory_iterator(model))
      if (entry.is_regular_file() && goes_along(entry.path())) fs::copy_file(entry.path(), folder.file(entry.path().filename().string()));
    const std::string index = (fs::path(model) / "model.safetensors.index.json").string();
    if (files > 1 || (fs::exists(index) && !fs::exists(fs::path(model) / "model.safetensors"))) {
      Json json = read_json_file(index);
      json["metadata"]["total_size"] = total;
      for (const MergePlan::Added& added : plan.added()) json["weight_map"][added.name] = source.file_names().back();
      write_file(folder.file("model.safetensors.index.json"), json.dump(2) + "\n");
    }
  }
  folder.commit();
}

GgmlType plain_type(DType dtype) { return dtype == DType::f16 ? GgmlType::f16 : dtype == DType::bf16 ? GgmlType::bf16 : GgmlType::f32; }

void write_gguf(const MergeSource& source, const MergePlan& plan, const std::string& model, const std::string& out, const MergeOptions& options, MergeReport& report) {
  const GgufFile file(model);
  const bool blocks = std::any_of(file.tensors().begin(), file.tensors().end(), [](const GgufTensorInfo& info) { return !ggml_format(info.type).dtype; });
  const std::optional<GgmlType> chosen = !options.gguf_type && blocks ? GgmlType::f16 : options.gguf_type;
  std::vector<GgufWriter::Entry> entries;
  std::uint64_t total = 0;
  for (const MergeSource::Item& info : source.items()) {
    check<ConfigError>(is_float(info.dtype), model, ": '", info.name, "' holds ", info.dtype, ", which cannot be written again");
    GgmlType type = info.shape.rank() < 2 ? GgmlType::f32 : chosen.value_or(plain_type(info.dtype));
    if (type == GgmlType::q8_0 && info.shape[info.shape.rank() - 1] % 32 != 0) type = GgmlType::f16;
    entries.push_back({info.name, type, info.shape});
  }
  for (const MergePlan::Added& added : plan.added()) entries.push_back({added.name, chosen.value_or(GgmlType::f32), added.tensor.shape()});
  for (const auto& entry : entries) total += static_cast<std::uint64_t>(entry.shape.count()) * static_cast<std::uint64_t>(ggml_format(entry.type).block_bytes) / static_cast<std::uint64_t>(ggml_format(entry.type).block_elements);

  const fs::path target = fs::absolute(out);
  check<FileError>(!fs::exists(target), out, ": exists already: choose a new file");
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  check_space(target.parent_path(), total + (total >> 6));
  GgufMetadata metadata;
  for (const std::string_view key : file.keys()) metadata.copy(file, std::string(key));
  if (chosen) {
    const std::uint32_t type = *chosen == GgmlType::f32 ? 0 : *chosen == GgmlType::f16 ? 1 : *chosen == GgmlType::bf16 ? 32 : 7;
    metadata.set("general.file_type", type);
  }
  Merger merger(source, plan, options, total);
  GgufWriter writer(out, metadata, entries);
  for (std::size_t i = 0; i < source.items().size(); ++i) {
    const DType as = entries[i].type == GgmlType::f16 ? DType::f16 : entries[i].type == GgmlType::bf16 ? DType::bf16 : DType::f32;
    const Tensor tensor = merger.make(i, as);
    writer.write(source.items()[i].name, tensor);
    source.forget(i);
    merger.done(source.items()[i].name, static_cast<std::uint64_t>(tensor.count() * item_size(tensor.dtype())));
  }
  for (const MergePlan::Added& added : plan.added()) {
    writer.write(added.name, contiguous(added.tensor));
    merger.done(added.name, static_cast<std::uint64_t>(added.tensor.count() * item_size(added.tensor.dtype())));
  }
  writer.finish();
  report = merger.report;
  report.files = {target.filename().string()};
}

}  // namespace

MergeReport merge_model_files(const std::string& model, const std::vector<std::string>& adapters, const std::string& out, const MergeOptions& options) {
  NoGrad no_grad;
  check<ConfigError>(!adapters.empty(), "merge: give at least one adapter");
  const bool from_gguf = model.ends_with(".gguf"), to_gguf = out.ends_with(".gguf");
  check<ConfigError>(from_gguf || !to_gguf, "merge: ", out, ": a GGUF file is written from a GGUF model only: give a folder, or the model as .gguf");
  check<ConfigError>(!options.gguf_type || to_gguf, "merge: a GGUF type has no meaning for a folder: give a dtype");
  check<ConfigError>(!options.dtype || !to_gguf, "merge: a dtype has no meaning for a GGUF file: give its type");
  if (options.dtype) check<ConfigError>(*options.dtype == DType::f32 || item_size(*options.dtype) == 2, "merge: expected float32, bfloat16 or float16, found ", *options.dtype);
  const std::unique_ptr<MergeSource> source = from_gguf ? open_gguf_source(model, !to_gguf) : open_huggingface_source(model);
  MergePlan plan(*source);
  for (const std::string& adapter : adapters) plan.add_adapter(adapter);
  for (std::size_t item = 0; item < source->items().size(); ++item)
    if (plan.changes(item)) plan.edit(item);  // what does not fit is told before anything is written
  MergeReport report;
  if (to_gguf) write_gguf(*source, plan, model, out, options, report);
  else write_folder(*source, plan, model, out, options, report);
  return report;
}

}  // namespace cambium

// Folders of Hugging Face and GGUF files, read in rows.
#include "peft/merge_source.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "autograd/ops.h"
#include "kernels/cpu/dequantize.h"
#include "nn/models/gguf_names.h"
#include "nn/models/loading.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

/// Pages of a mapped file that were read and are not needed again: dropped, they come back from the file if somebody asks.
void drop_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

Tensor rows_of(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  return tensor.rank() == 0 ? to_dtype(tensor, DType::f32) : to_dtype(slice(tensor, 0, begin, end), DType::f32);
}

/// Names under which a module's tensor may stand: a backbone alone is saved without the component that holds it.
class NameTable {
 public:
  void add(const std::string& name, std::size_t item) { items_[name] = item; }
  std::optional<std::size_t> find(const std::string& name) const {
    if (const auto at = items_.find(name); at != items_.end()) return at->second;
    const std::size_t dot = name.find('.');
    if (dot == std::string::npos || holds(name.substr(0, dot + 1))) return {};
    const auto at = items_.find(name.substr(dot + 1));
    return at == items_.end() ? std::nullopt : std::optional(at->second);
  }
  bool holds(const std::string& prefix) const {
    const auto at = items_.lower_bound(prefix);
    return at != items_.end() && at->first.starts_with(prefix);
  }

 private:
  std::map<std::string, std::size_t> items_;
};

/// Tied weights: the modules that share one tensor, and where it can stand.
std::optional<std::size_t> find_tied(const NameTable& names, const std::string& module_path) {
  const auto ends = [&](std::string_view text) { return module_path == text || module_path.ends_with("." + std::string(text)); };
  if (!ends("lm_head") && !ends("embed_out") && !ends("embed_tokens")) return {};
  for (const char* holder : {"shared.weight", "model.embed_tokens.weight", "transformer.wte.weight", "transformer.word_embeddings.weight", "gpt_neox.embed_in.weight"})
    if (const auto item = names.find(holder)) return item;
  return {};
}

class HuggingFaceSource final : public MergeSource {
 public:
  explicit HuggingFaceSource(const std::string& folder) : tensors_(open_safetensors_folder(folder)) {
    where_ = folder;
    const std::string config = (std::filesystem::path(folder) / "config.json").string();
    check<FileError>(std::filesystem::exists(config), folder, ": there is no config.json: expected a Hugging Face model folder");
    config_ = read_json_file(config);
    model_type_ = config_.value("model_type", std::string());
    std::size_t file = 0;
    for (const SafetensorsFile& part : tensors_.files()) {
      file_names_.push_back(std::filesystem::path(part.path()).filename().string());
      for (const SafetensorsInfo& info : part.tensors()) {
        const std::optional<DType> dtype = info.dtype();
        check<DTypeError>(dtype.has_value(), part.path(), ": '", info.name, "' is of type ", info.type_name(), ", which cannot be written again");
        names_.add(info.name, items_.size());
        items_.push_back({info.name, info.shape, *dtype, file});
      }
      ++file;
    }
  }
  std::optional<std::size_t> find(const std::string& module_path, const std::string& member) const override {
    if (const auto item = names_.find(module_path + "." + member)) return item;
    return member == "weight" ? find_tied(names_, module_path) : std::nullopt;
  }
  StoredMatrix matrix(std::size_t item) const override { return {is_stored_transposed(model_type_, items_[item].name), false, 0}; }
  std::string name_for(const std::string& module_path, const std::string& member) const override {
    const auto item = names_.find(module_path + "." + member);
    return item ? items_[*item].name : module_path + "." + member;
  }
  Tensor rows(std::size_t item, std::int64_t begin, std::int64_t end) const override { return rows_of(whole(item), begin, end); }
  Tensor whole(std::size_t item) const override { return tensors_.tensor(items_[item].name); }
  void forget(std::size_t item) const override {
    const SafetensorsFile& file = tensors_.files()[items_[item].file];
    drop_pages(file.raw(file.info(items_[item].name)));
  }

 private:
  ShardedSafetensors tensors_;
  NameTable names_;
  std::string model_type_;
};

class GgufSource final : public MergeSource {
 public:
  GgufSource(const std::string& path, bool as_huggingface) : file_(path), as_huggingface_(as_huggingface) {
    where_ = path;
    const std::string name(file_.value("general.architecture").string());
    architecture_ = gguf_architecture(name);
    check<ConfigError>(architecture_ != nullptr, path, ": architecture '", name, "' is not supported: ", known_gguf_architectures(), " are");
    config_ = config_from_gguf(file_);
    head_dim_ = config_.value("head_dim", std::int64_t{0});
    file_names_ = {as_huggingface ? "model.safetensors" : std::filesystem::path(path).filename().string()};
    for (const GgufTensorInfo& info : file_.tensors()) {
      const std::string stored(info.name);
      const GgmlFormat& format = ggml_format(info.type);
      check<DTypeError>(format.dtype || format.dequantizes, path, ": '", stored, "': elements of type ", info.type, " are not supported");
      const std::optional<std::string> known = huggingface_name(*architecture_, stored);
      if (as_huggingface && stored == "rope_freqs.weight") continue;  // what it says stands in the configuration
      check<NameError>(known || !as_huggingface || stored == "rope_freqs.weight", path, ": '", stored, "' has no name in Hugging Face's files of this architecture");
      if (known) names_.add(*known, items_.size());
      const bool turned = as_huggingface && stored_turned(info);
      items_.push_back({as_huggingface ? *known : stored, turned ? Shape{info.shape[1], info.shape[0]} : info.shape, format.dtype.value_or(DType::f32), 0});
      stored_.push_back(&info);
    }
  }
  std::optional<std::size_t> find(const std::string& module_path, const std::string& member) const override {
    if (const auto item = names_.find(module_path + "." + member)) return item;
    return member == "weight" ? find_tied(names_, module_path) : std::nullopt;
  }
  StoredMatrix matrix(std::size_t item) const override {
    if (as_huggingface_) return {is_stored_transposed(architecture_->model_type, items_[item].name), false, 0};
    return {false, stored_turned(*stored_[item]), permuted(*stored_[item]) ? head_dim_ : 0};
  }
  std::string name_for(const std::string& module_path, const std::string& member) const override {
    const auto item = names_.find(module_path + "." + member);
    if (item) return items_[*item].name;
    check<ConfigError>(as_huggingface_ || module_path == "lm_head", where_, ": the adapter has its own '", module_path, ".", member, "', for which a GGUF file has no name");
    return as_huggingface_ ? module_path + "." + member : "output." + member;
  }
  Tensor rows(std::size_t item, std::int64_t begin, std::int64_t end) const override {
    const GgufTensorInfo& info = *stored_[item];
    if (as_huggingface_ && (permuted(info) || stored_turned(info))) return rows_of(whole(item), begin, end);
    if (ggml_format(info.type).dtype) return rows_of(file_.tensor(info.name), begin, end);
    // Blocks lie within rows: these rows alone are unpacked.
    const GgmlFormat& format = ggml_format(info.type);
    const std::int64_t columns = info.shape.count() / info.shape[0];
    std::vector<std::int64_t> sizes(info.shape.begin(), info.shape.end());
    sizes[0] = end - begin;
    Tensor out = empty(Shape(sizes));
    const std::int64_t row_bytes = columns / format.block_elements * format.block_bytes;
    kernels::cpu::dequantize(info.type, file_.raw(info).data() + begin * row_bytes, out.count(), out.mutable_data<float>());
    return out;
  }
  Tensor whole(std::size_t item) const override {
    const GgufTensorInfo& info = *stored_[item];
    Tensor tensor = file_.tensor(info.name);
    if (as_huggingface_ && permuted(info)) tensor = halves_from_pairs(tensor, head_dim_);
    return as_huggingface_ && stored_turned(info) ? contiguous(transpose(tensor)) : tensor;
  }
  void forget(std::size_t item) const override { drop_pages(file_.raw(*stored_[item])); }
  const GgufFile& file() const { return file_; }

 private:
  bool permuted(const GgufTensorInfo& info) const {
    return architecture_->permuted_queries && (info.name.find(".attn_q.") != std::string_view::npos || info.name.find(".attn_k.") != std::string_view::npos);
  }
  bool stored_turned(const GgufTensorInfo& info) const { return architecture_->transposed && info.name.starts_with("blk.") && info.shape.rank() == 2; }

  GgufFile file_;
  const GgufArchitecture* architecture_ = nullptr;
  bool as_huggingface_;
  std::int64_t head_dim_ = 0;
  std::vector<const GgufTensorInfo*> stored_;
  NameTable names_;
};

}  // namespace

bool is_stored_transposed(std::string_view model_type, std::string_view tensor_name) {
  if (model_type != "gpt2" && model_type != "openai-gpt") return false;
  const bool in_block = tensor_name.find("h.") == 0 || tensor_name.find(".h.") != std::string_view::npos;
  return in_block && (tensor_name.find(".c_") != std::string_view::npos || tensor_name.find(".q_attn.") != std::string_view::npos);
}

std::unique_ptr<MergeSource> open_huggingface_source(const std::string& folder) { return std::make_unique<HuggingFaceSource>(folder); }
std::unique_ptr<MergeSource> open_gguf_source(const std::string& path, bool as_huggingface) { return std::make_unique<GgufSource>(path, as_huggingface); }

}  // namespace cambium

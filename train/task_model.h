// TaskModel: a base model with what was put on it for a task (adapters, a head, names of classes), ready to be trained, measured and saved.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/peft_model.h"
#include "train/mean_head.h"
#include "train/trainer.h"

namespace cambium {

/// How the head of sequence classification is made: the family's own, or a MeanHead on the bare model.
enum class HeadKind { own, mean };

struct TaskModel {
  std::shared_ptr<PretrainedModel> base;
  std::unique_ptr<PeftModel> peft;        ///< null: no adapter
  std::shared_ptr<MeanHead> head;         ///< null: the base model's own head
  std::vector<std::string> label_names;   ///< of classes, by number

  Task task() const { return head ? Task::sequence_classification : base->task(); }
  ModelOutput forward(const ModelInput& input, const ForwardContext& context = {}) const;

  /// PEFT's name of the task, for configurations. A MeanHead stands on features.
  TaskType task_type() const;
  /// Puts an adapter of this configuration on the base, with the task filled in.
  void add_adapter(PeftConfig config, RandomKey key);
  /// Every parameter of the base is trained, but for those that what is learned does not pass through (the pooler below a MeanHead).
  void train_base();
  /// What an optimizer may change: the adapter's parameters or the base's, and those of heads apart. Refers to this object.
  Trainable trainable() const;
  std::int64_t trainable_parameter_count() const;

  /// PEFT's adapter folder, and beside it what PEFT has no name for: mean_head.safetensors, label_names.json. Without an adapter: the base model's folder.
  void save(const std::string& folder, const std::string& adapter = "default") const;
};

/// The names of classes that were saved beside an adapter; empty if there are none.
std::vector<std::string> read_label_names(const std::string& folder);

}  // namespace cambium

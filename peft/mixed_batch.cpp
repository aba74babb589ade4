// Rows by adapter: taken apart, run, put together again.
#include "peft/mixed_batch.h"

#include <algorithm>

#include "peft/tuner.h"

namespace cambium {

Tensor forward_by_rows(const Layer& layer, const Tensor& x, const ForwardContext& context, const std::function<bool(const std::string&)>& has) {
  const std::vector<std::string>& names = context.adapter_names;
  check<ShapeError>(x.rank() > 0 && x.size(0) == static_cast<std::int64_t>(names.size()), layer.path(), ": adapter_names: ", names.size(), " names for an input of ", x.shape(),
                    ": one for each row is expected");
  struct Group {
    std::string adapter;  ///< empty: none
    std::vector<std::int64_t> rows;
  };
  std::vector<Group> groups;
  for (std::size_t row = 0; row < names.size(); ++row) {
    const std::string adapter = names[row] != kBaseRow && has(names[row]) ? names[row] : "";
    const auto at = std::find_if(groups.begin(), groups.end(), [&](const Group& group) { return group.adapter == adapter; });
    if (at == groups.end()) groups.push_back({adapter, {static_cast<std::int64_t>(row)}});
    else at->rows.push_back(static_cast<std::int64_t>(row));
  }
  const auto run = [&](const Group& group, const Tensor& rows) {
    ForwardContext own = context;
    own.adapter_names.clear();
    own.override_adapters = true;
    own.adapters = group.adapter.empty() ? std::vector<std::string>{} : std::vector{group.adapter};
    return layer.forward(rows, own);
  };
  if (groups.size() == 1) return run(groups.front(), x);
  const auto index = [&](const std::vector<std::int64_t>& rows) { return from_vector(rows, {static_cast<std::int64_t>(rows.size())}, x.device()); };
  std::vector<Tensor> parts;
  std::vector<std::int64_t> place(names.size());  // where each row lies among the parts
  std::int64_t done = 0;
  for (const Group& group : groups) {
    parts.push_back(run(group, index_select(x, 0, index(group.rows))));
    for (const std::int64_t row : group.rows) place[static_cast<std::size_t>(row)] = done++;
  }
  return index_select(cat(parts, 0), 0, index(place));
}

void check_adapter_names(const Tuner& tuner, const ForwardContext& context, std::int64_t rows) {
  if (context.adapter_names.empty()) return;
  check<StateError>(!tuner.is_prompt_learning(), "adapter_names: virtual tokens are the same for all rows: only adapters of layers can differ by row");
  check<ShapeError>(static_cast<std::int64_t>(context.adapter_names.size()) == rows, "adapter_names: expected a name for each of the ", rows, " rows, found ", context.adapter_names.size());
  for (const std::string& name : context.adapter_names)
    if (name != kBaseRow) tuner.config(name);  // NameError that lists what is there
  check<StateError>(tuner.merged_adapters().empty(), "adapter_names: adapters are merged into the base model: unmerge them before rows choose their own");
}

AdapterSwitch::AdapterSwitch(const Tuner& tuner) : known_(tuner.adapters()), names_(std::make_shared<const std::vector<std::string>>(tuner.active_adapters())) {
  check<StateError>(tuner.merged_adapters().empty(), "AdapterSwitch: adapters are merged into the base model: unmerge them before sessions choose their own");
}

void AdapterSwitch::select(const std::vector<std::string>& names) {
  for (const std::string& name : names)
    check<NameError>(std::find(known_.begin(), known_.end(), name) != known_.end(), "AdapterSwitch: no adapter '", name, "' when this switch was made");
  auto chosen = std::make_shared<const std::vector<std::string>>(names);
  const std::lock_guard lock(mutex_);
  names_.swap(chosen);
}

std::vector<std::string> AdapterSwitch::selected() const {
  const std::lock_guard lock(mutex_);
  return *names_;
}

ForwardContext AdapterSwitch::context(ForwardContext context) const {
  context.override_adapters = true;
  context.adapters = selected();
  return context;
}

}  // namespace cambium

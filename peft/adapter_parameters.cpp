// Parameters of adapters by name.
#include "peft/adapter_parameters.h"

namespace cambium {

AdapterWeight* AdapterWeights::find(const std::string& adapter) const {
  for (const auto& slot : slots_)
    if (slot->name() == adapter) return slot->get().get();
  return nullptr;
}

void AdapterWeights::add(const std::string& adapter, Tensor value, Tensor bias) {
  auto weight = std::make_shared<AdapterWeight>(std::move(value));
  weight->bias.set(std::move(bias));
  slots_.push_back(std::make_unique<Child<AdapterWeight>>(*this, adapter, std::move(weight)));
}

void AdapterWeights::remove(const std::string& adapter) {
  std::erase_if(slots_, [&](const auto& slot) { return slot->name() == adapter; });
}

Param& AdapterWeights::at(const std::string& adapter) const {
  AdapterWeight* found = find(adapter);
  check<NameError>(found != nullptr, path(), ": no adapter '", adapter, "' here");
  return found->weight;
}

Param& AdapterWeights::bias(const std::string& adapter) const {
  AdapterWeight* found = find(adapter);
  check<NameError>(found != nullptr, path(), ": no adapter '", adapter, "' here");
  return found->bias;
}

Param* AdapterParameters::find(const std::string& adapter) const {
  for (const auto& slot : slots_)
    if (slot->name() == adapter) return slot.get();
  return nullptr;
}

void AdapterParameters::add(const std::string& adapter, Tensor value) {
  slots_.push_back(std::make_unique<Param>(*this, adapter));
  slots_.back()->set(std::move(value));
}

void AdapterParameters::add_tied(const std::string& adapter, const Param& other) {
  slots_.push_back(std::make_unique<Param>(*this, adapter));
  slots_.back()->tie(other);
}

void AdapterParameters::remove(const std::string& adapter) {
  std::erase_if(slots_, [&](const auto& slot) { return slot->name() == adapter; });
}

Param& AdapterParameters::at(const std::string& adapter) const {
  Param* found = find(adapter);
  check<NameError>(found != nullptr, path(), ": no adapter '", adapter, "' here");
  return *found;
}

}  // namespace cambium

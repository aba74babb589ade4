// The module tree: registration, paths, state dicts.
#include "nn/module.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "nn/pattern.h"

namespace cambium {

namespace {

void check_name(const Module& owner, const std::string& name) {
  check<NameError>(!name.empty() && name.find('.') == std::string::npos, "module: '", name, "' is no name for a member: it is empty or has a dot");
  const auto taken = [&](const auto* member) { return member->name() == name; };
  check<NameError>(std::none_of(owner.own_parameters().begin(), owner.own_parameters().end(), taken) &&
                       std::none_of(owner.own_buffers().begin(), owner.own_buffers().end(), taken) &&
                       std::none_of(owner.children().begin(), owner.children().end(), taken),
                   "module: two members are called '", name, "'");
}

std::string join(const std::string& prefix, const std::string& name) { return prefix.empty() ? name : prefix + "." + name; }

/// "a, b, c (12 in all)" of at most ten names.
std::string first_ten(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < 10; ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > 10) text += ", … (" + std::to_string(names.size()) + " in all)";
  return text;
}

}  // namespace

Param::Param(Module& owner, std::string name) : owner_(owner), name_(std::move(name)) {
  check_name(owner, name_);
  owner.parameters_.push_back(this);
}

// Members go before the base part of their owner, so the owner's lists still stand here.
Param::~Param() { std::erase(owner_.parameters_, this); }

ChildSlot::~ChildSlot() { std::erase(owner_.children_, this); }

Buffer::Buffer(Module& owner, std::string name, bool persistent) : name_(std::move(name)), persistent_(persistent) {
  check_name(owner, name_);
  owner.buffers_.push_back(this);
}

ChildSlot::ChildSlot(Module& owner, std::string name) : owner_(owner), name_(std::move(name)) {
  check_name(owner, name_);
  owner.children_.push_back(this);
}

void ChildSlot::adopt(Module* module) {
  if (module != nullptr) module->slot_ = this;
}

void detail::leave_slot(Module& module, const ChildSlot& slot) {
  if (module.slot_ == &slot) module.slot_ = nullptr;
}

std::string ChildSlot::path() const { return join(owner_.path(), name_); }

std::string Module::path() const { return slot_ == nullptr ? std::string() : slot_->path(); }

ChildSlot& Module::child(std::string_view path) const {
  const Module* at = this;
  std::string walked;
  for (std::string_view rest = path;;) {
    const std::size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    const auto found = std::find_if(at->children_.begin(), at->children_.end(), [&](const ChildSlot* slot) { return slot->name() == name; });
    if (found == at->children_.end()) {
      std::vector<std::string> names;
      for (const ChildSlot* slot : at->children_) names.push_back(slot->name());
      fail<NameError>("module '", walked.empty() ? std::string(type_name()) : walked, "' has no child '", name, "': it has ", names.empty() ? "none" : first_ten(names));
    }
    if (dot == std::string_view::npos) return **found;
    walked = join(walked, name);
    const std::shared_ptr<Module> next = (*found)->module();
    check<NameError>(next != nullptr, "module '", walked, "' is empty");
    at = next.get();
    rest.remove_prefix(dot + 1);
  }
}

void Module::visit(const std::function<void(const std::string&, Module&)>& visitor) {
  visitor("", *this);
  visit_slots([&](const std::string& path, ChildSlot& slot) {
    if (const std::shared_ptr<Module> module = slot.module()) visitor(path, *module);
  });
}

void Module::visit_slots(const std::function<void(const std::string&, ChildSlot&)>& visitor) {
  const std::function<void(const std::string&, Module&)> walk = [&](const std::string& prefix, Module& module) {
    const std::vector<ChildSlot*> slots = module.children_;  // a copy: the visitor may replace what a slot holds
    for (ChildSlot* slot : slots) {
      const std::string path = join(prefix, slot->name());
      const std::shared_ptr<Module> held = slot->module();
      visitor(path, *slot);
      if (held && held == slot->module()) walk(path, *held);
    }
  };
  walk("", *this);
}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> out;
  std::unordered_set<const ParameterSlot*> seen;
  const_cast<Module*>(this)->visit([&](const std::string& path, Module& module) {
    for (const Param* p : module.parameters_)
      if (p->defined() && seen.insert(p->slot().get()).second) out.emplace_back(join(path, p->name()), p->slot());
  });
  return out;
}

std::vector<NamedTensor> Module::state_dict() const {
  std::vector<NamedTensor> out;
  std::unordered_set<const ParameterSlot*> seen;
  const_cast<Module*>(this)->visit([&](const std::string& path, Module& module) {
    for (const Param* p : module.parameters_)
      if (p->defined() && seen.insert(p->slot().get()).second) out.emplace_back(join(path, p->name()), p->get());
    for (const Buffer* b : module.buffers_)
      if (b->persistent() && b->get().defined()) out.emplace_back(join(path, b->name()), b->get());
  });
  return out;
}

namespace {

/// A leaf of the tensor's values where the module is.
Tensor on_device_of(const Tensor& now, const Tensor& tensor) {
  NoGrad no_grad;
  return now.is_meta() || now.device() == tensor.device() ? detach(tensor) : to_device(tensor, now.device());
}

}  // namespace

void Module::load_state_dict(const std::vector<NamedTensor>& tensors) {
  struct Place { ParameterSlot* parameter = nullptr; Buffer* buffer = nullptr; };
  std::unordered_map<std::string, Place> places;
  std::vector<std::pair<std::string, Place>> required;  // first names only
  std::unordered_set<const ParameterSlot*> seen;
  visit([&](const std::string& path, Module& module) {
    for (Param* p : module.parameters_) {
      if (!p->defined()) continue;
      const Place place{p->slot().get(), nullptr};
      places.emplace(join(path, p->name()), place);
      if (seen.insert(place.parameter).second) required.emplace_back(join(path, p->name()), place);
    }
    for (Buffer* b : module.buffers_)
      if (b->persistent() && b->get().defined()) {
        places.emplace(join(path, b->name()), Place{nullptr, b});
        required.emplace_back(join(path, b->name()), Place{nullptr, b});
      }
  });

  std::vector<std::string> missing, unexpected, mismatched;
  std::unordered_set<const void*> given;
  std::unordered_set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    const auto found = places.find(name);
    if (found == places.end() || !names.insert(name).second) {
      unexpected.push_back(name);
      continue;
    }
    const Place& place = found->second;
    const Tensor& now = place.parameter ? place.parameter->tensor : place.buffer->get();
    if (!(now.shape() == tensor.shape())) mismatched.push_back(concat_text(name, " (expected ", now.shape(), ", found ", tensor.shape(), ")"));
    given.insert(place.parameter ? static_cast<const void*>(place.parameter) : place.buffer);
  }
  for (const auto& [name, place] : required)
    if (!given.contains(place.parameter ? static_cast<const void*>(place.parameter) : place.buffer)) missing.push_back(name);
  std::string problems;
  if (!missing.empty()) problems += ": missing " + first_ten(missing);
  if (!unexpected.empty()) problems += ": unexpected " + first_ten(unexpected);
  if (!mismatched.empty()) problems += ": wrong shape " + first_ten(mismatched);
  check<NameError>(problems.empty(), "load_state_dict of ", type_name(), problems);

  for (const auto& [name, tensor] : tensors) {
    const Place& place = places.at(name);
    if (place.parameter) {
      const bool trained = place.parameter->tensor.requires_grad();
      place.parameter->tensor = on_device_of(place.parameter->tensor, tensor);
      if (trained) place.parameter->tensor.set_requires_grad(true);
    } else {
      place.buffer->set(on_device_of(place.buffer->get(), tensor));
    }
  }
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, slot] : named_parameters()) count += slot->tensor.count();
  return count;
}

int Module::set_requires_grad(const std::string& pattern, bool value) {
  const Pattern matcher(pattern);
  int changed = 0;
  for (const auto& [name, slot] : named_parameters())
    if (matcher.matches_whole(name)) {
      slot->tensor.set_requires_grad(value);
      ++changed;
    }
  check<NameError>(changed > 0, "set_requires_grad: no parameter's name matches '", pattern, "'");
  return changed;
}

void Module::set_requires_grad(bool value) {
  for (const auto& [name, slot] : named_parameters()) slot->tensor.set_requires_grad(value);
}

void Module::to(DType dtype) {
  check<DTypeError>(is_float(dtype), "to: modules hold floating numbers, ", dtype, " is none");
  NoGrad no_grad;
  const auto converted = [&](const Tensor& tensor) {
    if (!is_float(tensor.dtype()) || tensor.dtype() == dtype) return tensor;
    Tensor out = to_dtype(tensor, dtype);
    if (tensor.requires_grad()) out.set_requires_grad(true);
    return out;
  };
  visit([&](const std::string&, Module& module) {
    for (Param* p : module.parameters_)
      if (p->defined()) p->set(converted(p->get()));
    for (Buffer* b : module.buffers_)
      if (b->get().defined()) b->set(converted(b->get()));
  });
}

void Module::to(Device device) {
  NoGrad no_grad;
  const auto moved = [&](const Tensor& tensor) {
    if (tensor.is_meta() || tensor.device() == device) return tensor;
    Tensor out = to_device(tensor, device);
    if (tensor.requires_grad()) out.set_requires_grad(true);
    if (tensor.grad().defined()) out.set_grad(to_device(tensor.grad(), device));
    return out;
  };
  visit([&](const std::string&, Module& module) {
    for (Param* p : module.parameters_)
      if (p->defined()) p->set(moved(p->get()));
    for (Buffer* b : module.buffers_)
      if (b->get().defined()) b->set(moved(b->get()));
    module.move_kept(device);
  });
}

Device Module::device() const {
  for (const Param* p : parameters_)
    if (p->defined()) return p->get().device();
  const auto parameters = named_parameters();
  return parameters.empty() ? Device{} : parameters.front().second->tensor.device();
}

void Module::check_one_device(std::string_view what) const {
  const std::vector<NamedParameter> parameters = named_parameters();
  for (std::size_t i = 1; i < parameters.size(); ++i) {
    const auto& [name, slot] = parameters[i];
    const auto& [before, other] = parameters[i - 1];
    check<DeviceError>(slot->tensor.device() == other->tensor.device(), what, ": parameter '", name, "' is on ", slot->tensor.device(), ", '", before, "' on ", other->tensor.device(),
                       ": move the module with to(device)");
  }
}

Tensor Layer::forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const {
  CrossEntropyOptions options;
  options.reduction = count ? LossReduction::sum : LossReduction::mean;
  Tensor loss = cross_entropy(forward(hidden, context), targets, options);
  return count ? div(loss, *count) : loss;
}

Tensor LinearLike::forward_with_lora(const Tensor& x, std::span<const LoraTerm> terms, const ForwardContext& context) const {
  const Tensor base = forward(x, context);
  Tensor y = base;
  for (const LoraTerm& term : terms) {
    Tensor in = to_dtype(x, term.a.dtype());
    if (term.dropout_p > 0) in = dropout(in, term.dropout_p, RandomKey{term.seed, term.offset});
    y = add(to_dtype(y, term.a.dtype()), mul(linear(linear(in, term.a), term.b), term.scaling));
  }
  return to_dtype(y, base.dtype());
}

}  // namespace cambium

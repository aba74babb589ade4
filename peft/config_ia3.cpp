// IA3Config: fields, checks, file.
#include "peft/config_fields.h"

namespace cambium {

void validate(const IA3Config& c) {
  if (!c.target_modules.is_list() || !c.feedforward_modules.is_list()) return;
  const std::vector<std::string>& targets = c.target_modules.names();
  for (const std::string& name : c.feedforward_modules.names())
    check<ConfigError>(std::find(targets.begin(), targets.end(), name) != targets.end(), "IA3Config: feedforward_modules: '", name, "' is not among target_modules: it has to be in both");
}

void detail::parse_into(IA3Config& c, ConfigFields& fields, std::vector<std::string>* warnings) {
  fields.common(c);
  fields.selection("target_modules", c.target_modules);
  fields.selection("exclude_modules", c.exclude_modules);
  fields.selection("feedforward_modules", c.feedforward_modules);
  fields.boolean("fan_in_fan_out", c.fan_in_fan_out);
  fields.boolean("init_ia3_weights", c.init_ia3_weights);
  c.other_fields = fields.others(Json::object(), warnings);
}

Json detail::to_json_object(const IA3Config& c) {
  Json out = Json::object();
  out["target_modules"] = selection_json(c.target_modules);
  out["exclude_modules"] = selection_json(c.exclude_modules);
  out["feedforward_modules"] = selection_json(c.feedforward_modules);
  out["fan_in_fan_out"] = c.fan_in_fan_out;
  out["init_ia3_weights"] = c.init_ia3_weights;
  write_common(out, "IA3", c);
  return out;
}

}  // namespace cambium

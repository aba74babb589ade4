// Frequencies of rotary positions.
#include "nn/models/rope.h"

#include <cmath>
#include <numbers>

namespace cambium {

namespace {

// Divides low frequencies by `factor`, keeps high ones, and goes smoothly from one to the other.
void scale_llama3(std::vector<double>& frequencies, const ConfigReader& settings) {
  const double factor = settings.number("factor", 0.0), low = settings.number("low_freq_factor", 0.0), high = settings.number("high_freq_factor", 0.0),
               context = static_cast<double>(settings.size({"original_max_position_embeddings"}));
  check<ConfigError>(factor > 0.0 && low > 0.0 && high > low, settings.where(), ": llama3 needs 0 < factor and 0 < low_freq_factor < high_freq_factor, found ", factor, ", ",
                     low, ", ", high);
  for (double& f : frequencies) {
    const double wavelength = 2.0 * std::numbers::pi / f;
    if (wavelength > context / low) {
      f /= factor;
    } else if (wavelength >= context / high) {
      const double smooth = (context / wavelength - low) / (high - low);
      f = (1.0 - smooth) * f / factor + smooth * f;
    }
  }
}

}  // namespace

Tensor rope_frequencies(const ConfigReader& config, std::int64_t head_dim) {
  check<ConfigError>(head_dim % 2 == 0, config.where(), ": rotary positions need an even head size, found ", head_dim);
  const bool five = config.has("rope_parameters"), four = config.has("rope_scaling");
  const double theta = five && config.object("rope_parameters").has("rope_theta") ? config.object("rope_parameters").number("rope_theta", 0.0)
                                                                                  : config.number("rope_theta", 10000.0);
  check<ConfigError>(theta > 0.0, config.where(), ": 'rope_theta': expected a positive number, found ", theta);
  std::vector<double> frequencies(static_cast<std::size_t>(head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));

  if (five || four) {
    const ConfigReader settings = config.object(five ? "rope_parameters" : "rope_scaling");
    settings.refuse_unless("partial_rotary_factor", 1.0);
    const std::string type = settings.text("rope_type", settings.text("type", "default"));
    if (type == "linear") {
      const double factor = settings.number("factor", 0.0);
      check<ConfigError>(factor > 0.0, settings.where(), ": 'factor': expected a positive number, found ", factor);
      for (double& f : frequencies) f /= factor;
    } else if (type == "llama3") {
      scale_llama3(frequencies, settings);
    } else if (type == "factors") {
      const Json* factors = settings.find("frequency_factors");
      check<ConfigError>(factors != nullptr && factors->is_array() && factors->size() == frequencies.size(), settings.where(), ": 'frequency_factors': expected ",
                         frequencies.size(), " numbers");
      for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const Json& factor = (*factors)[i];
        check<ConfigError>(factor.is_number() && factor.get<double>() > 0.0, settings.where(), ": 'frequency_factors': expected positive numbers");
        frequencies[i] /= factor.get<double>();
      }
    } else {
      check<ConfigError>(type == "default", settings.where(), ": rope type '", type, "' is not supported: default, linear and llama3 are");
    }
  }
  std::vector<float> rounded(frequencies.begin(), frequencies.end());
  return from_vector(rounded, {head_dim / 2});
}

}  // namespace cambium

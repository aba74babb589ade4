// Error classes and check(): one line that says what failed, where, what was expected and what was found.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cambium {

/// Base of everything this library throws. `what()` is one line:
/// *what failed: where: expected X, found Y: what to do*.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct ShapeError : Error { using Error::Error; };    ///< sizes, ranks, broadcasting
struct DTypeError : Error { using Error::Error; };    ///< element types
struct DeviceError : Error { using Error::Error; };   ///< devices that are absent or mixed
struct NameError : Error { using Error::Error; };     ///< a module, parameter, adapter or option that does not exist
struct ConfigError : Error { using Error::Error; };   ///< a configuration that cannot be used
struct FileError : Error { using Error::Error; };     ///< a file that is missing, damaged or of another kind
struct StateError : Error { using Error::Error; };    ///< a call at the wrong moment (merged, freed, in-place, …)

namespace detail {

template <class T>
void append(std::ostream& stream, const T& value) { stream << value; }

template <class T>
void append(std::ostream& stream, const std::vector<T>& values) {
  stream << '[';
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i) stream << ", ";
    append(stream, values[i]);
  }
  stream << ']';
}

inline void append(std::ostream& stream, bool value) { stream << (value ? "true" : "false"); }

}  // namespace detail

/// All arguments as one text; vectors print as [a, b, c].
template <class... Parts>
std::string concat_text(const Parts&... parts) {
  std::ostringstream stream;
  (detail::append(stream, parts), ...);
  return std::move(stream).str();
}

/// Throws `E` with the parts joined. For places where the failure is already known.
template <class E = Error, class... Parts>
[[noreturn]] void fail(const Parts&... parts) { throw E(concat_text(parts...)); }

/// Throws `E` with the parts joined if `condition` does not hold; the parts are formatted only then.
template <class E = Error, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]] fail<E>(parts...);
}

}  // namespace cambium

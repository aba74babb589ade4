// What several stages do to a text.
#include "nn/text/text.h"

#include "nn/text/unicode.h"

namespace cambium::detail {

void prepend(Text& text, std::string_view prefix, bool stands_for_first) {
  Rewriter out(text);
  const std::size_t size = out.source().size();
  out.put(prefix, 0, size == 0 || !stands_for_first ? 0 : decode_utf8(out.source(), 0).size);
  out.keep(0, size);
  out.finish();
}

}  // namespace cambium::detail

// The wire format of protocol buffers (protobuf.dev, "Encoding"), as much of it as a .model needs.
#include "nn/text/sentencepiece_file.h"

#include <bit>

#include "kernels/error.h"

namespace cambium::detail {

namespace {

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// One field of a message; `bytes` or `number` by its wire type.
struct Field {
  std::uint32_t number = 0;
  Wire wire = Wire::varint;
  std::uint64_t value = 0;
  std::string_view bytes;
  std::size_t at = 0;  // of its key within the file
};

class MessageReader {
 public:
  MessageReader(std::string_view message, std::size_t first_byte, const std::string& where) : message_(message), first_byte_(first_byte), where_(where) {}

  bool next(Field& field) {
    if (at_ == message_.size()) return false;
    field.at = first_byte_ + at_;
    const std::uint64_t key = varint();
    if (key >> 3 == 0 || key >> 3 > 0x1FFFFFFF) refuse("expected the key of a field");
    field.number = static_cast<std::uint32_t>(key >> 3);
    field.wire = static_cast<Wire>(key & 7);
    field.bytes = {};
    switch (field.wire) {
      case Wire::varint: field.value = varint(); break;
      case Wire::fixed64: field.value = fixed(8); break;
      case Wire::fixed32: field.value = fixed(4); break;
      case Wire::bytes: {
        const std::uint64_t size = varint();
        if (size > message_.size() - at_) refuse("a length reaches beyond the end");
        field.bytes = message_.substr(at_, static_cast<std::size_t>(size));
        at_ += static_cast<std::size_t>(size);
        break;
      }
      default: refuse("unknown wire type");
    }
    return true;
  }

  // Values of a field that has to be of a kind.
  std::string_view bytes(const Field& field) const { return expect(field, Wire::bytes), field.bytes; }
  MessageReader message(const Field& field) const {
    return {bytes(field), first_byte_ + static_cast<std::size_t>(field.bytes.data() - message_.data()), where_};
  }
  bool flag(const Field& field) const { return expect(field, Wire::varint), field.value != 0; }
  std::uint64_t number(const Field& field) const { return expect(field, Wire::varint), field.value; }
  float real(const Field& field) const { return expect(field, Wire::fixed32), std::bit_cast<float>(static_cast<std::uint32_t>(field.value)); }

 private:
  [[noreturn]] void refuse(const char* what) const { fail<ConfigError>(where_, ": byte ", first_byte_ + at_, ": ", what, ": is this a SentencePiece model?"); }
  void expect(const Field& field, Wire wire) const {
    if (field.wire != wire) fail<ConfigError>(where_, ": byte ", field.at, ": field ", field.number, " is of another wire type: is this a SentencePiece model?");
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (at_ == message_.size()) refuse("a number reaches beyond the end");
      const auto byte = static_cast<unsigned char>(message_[at_++]);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    refuse("a number is longer than 10 bytes");
  }
  std::uint64_t fixed(std::size_t size) {
    if (size > message_.size() - at_) refuse("a number reaches beyond the end");
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(message_[at_ + i]);
    at_ += size;
    return value;
  }

  std::string_view message_;
  std::size_t first_byte_, at_ = 0;
  const std::string& where_;
};

SentencePieceFile::Piece read_piece(MessageReader reader, const std::string& where) {
  SentencePieceFile::Piece piece;
  for (Field field; reader.next(field);) {
    if (field.number == 1) piece.text = reader.bytes(field);
    else if (field.number == 2) piece.score = reader.real(field);
    else if (field.number == 3) {
      const std::uint64_t type = reader.number(field);
      if (type < 1 || type > 6) fail<ConfigError>(where, ": byte ", field.at, ": expected a type of piece in 1 … 6, found ", type);
      piece.type = static_cast<PieceType>(type);
    }
  }
  return piece;
}

void read_trainer(MessageReader reader, SentencePieceFile& file, const std::string& where) {
  for (Field field; reader.next(field);) {
    switch (field.number) {
      case 3: {
        const std::uint64_t kind = reader.number(field);
        if (kind < 1 || kind > 4) fail<ConfigError>(where, ": byte ", field.at, ": expected a type of model in 1 … 4, found ", kind);
        file.kind = static_cast<SentencePieceFile::Kind>(kind);
        break;
      }
      case 24: file.treat_whitespace_as_suffix = reader.flag(field); break;
      case 35: file.byte_fallback = reader.flag(field); break;
      case 44: file.unknown_surface = reader.bytes(field); break;
      case 46: file.bos_piece = reader.bytes(field); break;
      case 47: file.eos_piece = reader.bytes(field); break;
      case 48: file.pad_piece = reader.bytes(field); break;
      default: break;
    }
  }
}

void read_rules(MessageReader reader, SentencePieceRules& rules) {
  for (Field field; reader.next(field);) {
    switch (field.number) {
      case 2: rules.character_map = reader.bytes(field); break;
      case 3: rules.add_dummy_prefix = reader.flag(field); break;
      case 4: rules.remove_extra_whitespaces = reader.flag(field); break;
      case 5: rules.escape_whitespaces = reader.flag(field); break;
      default: break;
    }
  }
}

}  // namespace

SentencePieceFile read_sentencepiece_file(std::string_view bytes, const std::string& where) {
  SentencePieceFile file;
  MessageReader reader(bytes, 0, where);
  for (Field field; reader.next(field);) {
    switch (field.number) {
      case 1: file.pieces.push_back(read_piece(reader.message(field), where)); break;
      case 2: read_trainer(reader.message(field), file, where); break;
      case 3: read_rules(reader.message(field), file.normalizer); break;
      case 5: read_rules(reader.message(field), file.denormalizer); break;
      default: break;
    }
  }
  return file;
}

}  // namespace cambium::detail

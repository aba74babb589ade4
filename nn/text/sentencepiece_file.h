// A SentencePiece .model: a protocol-buffer message with the pieces and the rules of normalization. Internal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cambium::detail {

/// Numbers as in sentencepiece_model.proto, and in GGUF's tokenizer.ggml.token_type.
enum class PieceType : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

// Defaults are those of sentencepiece_model.proto.

struct SentencePieceRules {
  std::string character_map;  ///< empty: characters stay as they are
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

struct SentencePieceFile {
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  enum class Kind : std::uint8_t { unigram = 1, bpe, word, character };

  std::vector<Piece> pieces;  ///< by id
  Kind kind = Kind::unigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string unknown_surface = " \xE2\x81\x87 ";  ///< what decoding shows for the unknown piece
  std::string bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";

  SentencePieceRules normalizer, denormalizer;  ///< of the text before, and of decoded text
};

/// Reads under the limits of the format: a varint has at most 10 bytes, a length stays within what is left, fields without a meaning
/// here are skipped. ConfigError starting with `where` and naming the byte.
SentencePieceFile read_sentencepiece_file(std::string_view bytes, const std::string& where);

}  // namespace cambium::detail

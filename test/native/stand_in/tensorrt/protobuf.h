// Protocol Buffers' wire format. A message is a list of fields, which can be changed and written again.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace stand_in {

struct Field {
  uint32_t number = 0;
  uint32_t wire = 2;  // 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes
  uint64_t value = 0;
  std::string bytes;  // for wires 1, 2 and 5
};

class Message {
 public:
  Message() = default;
  // Throws std::runtime_error if `text` isn't a message.
  explicit Message(std::string_view text) {
    while (!text.empty()) {
      Field field;
      const uint64_t key = takeVarint(text);
      field.number = static_cast<uint32_t>(key >> 3);
      field.wire = static_cast<uint32_t>(key & 7);
      if (field.number == 0) throw std::runtime_error("a field without a number");
      if (field.wire == 0) {
        field.value = takeVarint(text);
      } else {
        uint64_t size = 0;
        if (field.wire == 1) {
          size = 8;
        } else if (field.wire == 5) {
          size = 4;
        } else if (field.wire == 2) {
          size = takeVarint(text);
        } else {
          throw std::runtime_error("an unknown wire type");
        }
        if (size > text.size()) throw std::runtime_error("a field that leaves its message");
        field.bytes = text.substr(0, size);
        text.remove_prefix(size);
      }
      fields.push_back(std::move(field));
    }
  }

  std::string write() const {
    std::string text;
    for (const Field& field : fields) {
      addVarint(text, uint64_t{field.number} << 3 | field.wire);
      if (field.wire == 0) addVarint(text, field.value);
      if (field.wire == 2) addVarint(text, field.bytes.size());
      text += field.bytes;
    }
    return text;
  }

  std::string text(uint32_t number) const {
    const Field* field = find(number);
    return field == nullptr ? "" : field->bytes;
  }
  uint64_t value(uint32_t number) const {
    const Field* field = find(number);
    return field == nullptr ? 0 : field->value;
  }
  bool has(uint32_t number) const { return find(number) != nullptr; }

  std::vector<std::string> texts(uint32_t number) const {
    std::vector<std::string> all;
    for (const Field& field : fields) {
      if (field.number == number && field.wire == 2) all.push_back(field.bytes);
    }
    return all;
  }
  std::vector<Message> messages(uint32_t number) const {
    std::vector<Message> all;
    for (const Field& field : fields) {
      if (field.number == number && field.wire == 2) all.emplace_back(field.bytes);
    }
    return all;
  }
  // Returns repeated integers, packed or not.
  std::vector<int64_t> integers(uint32_t number) const {
    std::vector<int64_t> all;
    for (const Field& field : fields) {
      if (field.number != number) continue;
      if (field.wire == 0) all.push_back(static_cast<int64_t>(field.value));
      std::string_view packed = field.bytes;
      while (field.wire == 2 && !packed.empty()) all.push_back(static_cast<int64_t>(takeVarint(packed)));
    }
    return all;
  }

  void add(uint32_t number, std::string bytes) { fields.push_back({number, 2, 0, std::move(bytes)}); }
  void add(uint32_t number, uint64_t value) { fields.push_back({number, 0, value, {}}); }
  void remove(uint32_t number) {
    std::erase_if(fields, [number](const Field& field) { return field.number == number; });
  }

  std::vector<Field> fields;

 private:
  const Field* find(uint32_t number) const {
    // If a field occurs twice, the last one counts.
    for (size_t i = fields.size(); i-- > 0;) {
      if (fields[i].number == number) return &fields[i];
    }
    return nullptr;
  }

  static uint64_t takeVarint(std::string_view& text) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (text.empty()) break;
      const auto byte = static_cast<uint8_t>(text.front());
      text.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("a number that does not end");
  }

  static void addVarint(std::string& text, uint64_t value) {
    while (value >= 0x80) {
      text += static_cast<char>(value | 0x80);
      value >>= 7;
    }
    text += static_cast<char>(value);
  }
};

}  // namespace stand_in

// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/table.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <utility>

namespace piserve::client {
namespace {

bool LooksLikeANumber(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return end != text.c_str();
}

}  // namespace

void Table::Add(std::vector<std::string> row) {
  row.resize(rows_.front().size());
  rows_.push_back(std::move(row));
}

std::string Table::ToString(int indent) const {
  const std::size_t columns = rows_.front().size();
  std::vector<std::size_t> width(columns, 0);
  std::vector<bool> right(columns, false);
  for (std::size_t c = 0; c < columns; ++c) {
    for (const auto& row : rows_) width[c] = std::max(width[c], row[c].size());
    right[c] = c > 0 && rows_.size() > 1 && LooksLikeANumber(rows_[1][c]);
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line(indent, ' ');
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string pad(width[c] - row[c].size(), ' ');
      line += (c == 0 ? "" : "  ");
      line += right[c] ? pad + row[c] : row[c] + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace piserve::client

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace piserve::client {

// Text in aligned columns: the first one to the left, the others to the right
// where the first row below the head looks like a number.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_({std::move(head)}) {}

  // As many cells as the head has; missing ones are empty.
  void Add(std::vector<std::string> row);

  // With a trailing newline; `indent` spaces before each line.
  std::string ToString(int indent = 0) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace piserve::client

// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/table.h"

#include <gtest/gtest.h>

namespace piserve::client {
namespace {

TEST(Table, AlignsWordsLeftAndNumbersRight) {
  Table table({"stage", "ms"});
  table.Add({"gpu", "12.5"});
  table.Add({"x", "3"});
  EXPECT_EQ(table.ToString(1),
            " stage    ms\n"
            " gpu    12.5\n"
            " x         3\n");
}

TEST(Table, MissingCellsAreEmptyAndLeaveNoTrailingBlanks) {
  Table table({"a", "b"});
  table.Add({"1"});
  EXPECT_EQ(table.ToString(), "a  b\n1\n");
}

}  // namespace
}  // namespace piserve::client

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "server/config.h"
#include "server/server.h"

namespace piserve::server {

// The command line flags of every server binary:
//   --public_address, --probe_address, --admin_address, --http_address,
//   --websocket_address
//   --port            of the public address; the host stays
//   --port_file, --allow_insecure, --record, --log_level
// win over what `config` says.

// absl::ParseCommandLine; --help prints the program's own flags and ends it
// with 0.
std::vector<char*> ParseFlags(const std::string& usage, int argc, char** argv);

// Serves until SIGTERM or SIGINT; a second one ends the process at once. Prints
// the ready line to standard output, and one line to standard error if it
// cannot start. Returns the exit code, or does not return after a device fault.
// To be called from main, before any thread is started.
int RunServer(const std::string& program, Config config, PolicyFactory factory);

}  // namespace piserve::server

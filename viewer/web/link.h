// The browser's own WebSocket.
#pragma once

#include "viewer/remote.h"

namespace fathom::viewer {

// To a server at "ws://HOST/live"; made again a second after it broke.
std::unique_ptr<Link> open_link(std::string url);

} // namespace fathom::viewer

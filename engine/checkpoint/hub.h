// Models that Hugging Face's tools have already downloaded, by the name they have there. Nothing is ever
// downloaded here. The cache, in the first of $HF_HUB_CACHE, $HF_HOME/hub,
// $XDG_CACHE_HOME/huggingface/hub and ~/.cache/huggingface/hub whose variable is set:
//   models--ORG--NAME/refs/REVISION     the commit that a branch or tag stood for when it was fetched
//   models--ORG--NAME/snapshots/COMMIT  its files: a checkpoint folder, of links into ../../blobs
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace fathom {

// The path meant by `model`, which a person gave. What exists is itself, and so is all that is no name
// "ORG/NAME" or "ORG/NAME@REVISION" (for open_model to refuse). A name becomes its folder in the cache:
// REVISION is a branch, a tag or a whole commit; without it "main", or the only revision there is. Throws
// Error when the cache lacks the model or the revision, has a part of it only, or leaves a choice.
std::filesystem::path find_model(std::string_view model);

// "ORG/NAME" when `folder` is such a folder of a cache.
std::optional<std::string> name_in_hub(const std::filesystem::path& folder);

} // namespace fathom

// Whether ops are recorded: a flag of the thread, changed for a scope.
#pragma once

namespace cambium {

bool grad_enabled();

/// While one lives, ops of this thread are not recorded and leaves may be written in place.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// Records again inside a NoGrad (recomputation in checkpoint()).
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  bool before_;
};

}  // namespace cambium

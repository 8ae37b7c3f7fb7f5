// Runs a library that AOTInductor compiled of an int8 model: no Python, no quantfx.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: main net.pt2\n";
    return 2;
  }
  torch::inductor::AOTIModelPackageLoader model(argv[1]);
  at::Tensor x = at::ones({1, 3, 8, 8});
  at::Tensor scores = model.run({x}).at(0);
  std::cout << scores.argmax(1).item<int64_t>() << "\n";
}

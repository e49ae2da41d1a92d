// A binary PPM, what djpeg, convert and ffmpeg write: P6, width, height, 255, then RGB bytes.
#pragma once
#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    size_t width = 0, height = 0;
    std::vector<uint8_t> pixels;  // height x width x 3
};

inline Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    auto next = [&] {  // the next word of the head, behind comments
        std::string word;
        while (file >> word && word[0] == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        return word;
    };
    auto number = [&](unsigned long most) {
        const std::string word = next();
        const bool digits = !word.empty() && word.size() < 6 && word.find_first_not_of("0123456789") == word.npos;
        const unsigned long value = digits ? std::stoul(word) : 0;
        if (value < 1 || value > most) throw std::runtime_error("its head is damaged, or it is larger than a word is");
        return value;
    };
    if (!file || next() != "P6") throw std::runtime_error("no binary PPM (P6) that can be read");
    Picture picture;
    picture.width = number(16384), picture.height = number(16384);
    if (number(65535) != 255) throw std::runtime_error("not of 8 bits a colour");
    file.get();  // the one space behind the head
    if (picture.width * picture.height > (1u << 26)) throw std::runtime_error("over 64 million pixels");
    picture.pixels.resize(picture.width * picture.height * 3);
    file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
    if (static_cast<size_t>(file.gcount()) != picture.pixels.size()) throw std::runtime_error("it ends too early");
    return picture;
}

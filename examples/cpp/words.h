// What both programs share: ids to text, a line for each picture, errors as one line.
#pragma once
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>

#include "picture.h"

struct Word {
    std::string text;
    float confidence;
    bool settled;
};

// docs/single-file.md, "Ids to text": id i is the i-th character of the charset, counted from 1. Code points, as UTF-8.
inline std::string text_of(const int32_t* ids, int32_t length, const std::string& charset) {
    std::vector<std::string> characters;
    for (const char byte : charset) {
        if ((byte & 0xC0) != 0x80) characters.emplace_back();
        characters.back() += byte;
    }
    std::string text;
    for (int32_t i = 0; i < length; ++i) text += characters.at(static_cast<size_t>(ids[i] - 1));
    return text;
}

// open(FILE) gives a function from a picture to its word.
using Read = std::function<Word(Picture&)>;
inline int read_pictures(int count, char** arguments, const std::function<Read(const std::string&)>& open) {
    if (count < 3) return std::fprintf(stderr, "usage: read_word word.onnx PICTURE.ppm...\n"), 2;
    const char* at = arguments[1];
    try {
        const Read read = open(at);
        for (int i = 2; i < count; ++i) {
            at = arguments[i];
            Picture picture = read_ppm(at);
            const Word word = read(picture);
            std::printf("%s\t%s\t%.4f%s\n", at, word.text.c_str(), word.confidence, word.settled ? "" : "\tnot settled");
        }
    } catch (const std::exception& error) {
        std::string said = error.what();
        std::replace(said.begin(), said.end(), '\n', ' ');
        return std::fprintf(stderr, "%s: %s\n", at, said.c_str()), 2;
    }
    return 0;
}

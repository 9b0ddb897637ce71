// Arrays for vector code: aligned to cache lines, zeroed, on large pages where they are large.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace deltarnn {

template <class T>
class AlignedArray {
  public:
    AlignedArray() = default;

    explicit AlignedArray(std::size_t size) : size_(size) {
        // A column is only a few cache lines of a large matrix, and columns are visited in any order: with 4 KiB pages
        // nearly every one costs a page walk.
        constexpr std::size_t line = 64, large_page = std::size_t{2} << 20;
        const std::size_t alignment = size * sizeof(T) >= large_page / 2 ? large_page : line;
        const std::size_t bytes = (size * sizeof(T) + alignment) / alignment * alignment;  // never 0
        data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
        if (alignment == large_page) madvise(data_.get(), bytes, MADV_HUGEPAGE);  // a wish: failure costs speed only
#endif
        std::memset(static_cast<void*>(data_.get()), 0, bytes);
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }
    std::size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(T* data) const { std::free(data); }
    };
    std::unique_ptr<T[], Free> data_;
    std::size_t size_ = 0;
};

}  // namespace deltarnn

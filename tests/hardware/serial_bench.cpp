// Plays a computer at the serial port of serial_board: serial_bench COMMANDS ANSWERS CLOCKS_PER_BIT.
// COMMANDS: lines of an answer's length and the bytes to send before it, in hexadecimal. ANSWERS: a line of bytes each.
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "Vserial_board.h"
#include "verilated.h"

namespace {

class Line {
public:
    explicit Line(int clocks_per_bit) : clocks_per_bit_(clocks_per_bit) {
        board_.rx = 1;
        tick(600);  // the board wakes up
    }

    void send(unsigned byte) {
        const unsigned bits = 1U << 9 | byte << 1;
        for (int bit = 0; bit < 10; ++bit) {
            board_.rx = bits >> bit & 1;
            tick(clocks_per_bit_);
        }
    }

    // The next byte; -1 if none comes.
    int receive() {
        for (int waited = 0; board_.tx; ++waited) {
            if (waited > 100000) return -1;
            tick(1);
        }
        tick(clocks_per_bit_ / 2);
        int byte = 0;
        for (int bit = 0; bit < 8; ++bit) {
            tick(clocks_per_bit_);
            byte |= board_.tx << bit;
        }
        tick(clocks_per_bit_);
        return board_.tx ? byte : -1;
    }

private:
    void tick(int clocks) {
        for (int half = 0; half < 2 * clocks; ++half) {
            board_.clock = !board_.clock;
            board_.eval();
        }
    }

    int clocks_per_bit_;
    Vserial_board board_;
};

}  // namespace

int main(int, char** argv) {
    std::ifstream commands(argv[1]);
    std::ofstream answers(argv[2]);
    Line line(std::atoi(argv[3]));
    for (std::string text; std::getline(commands, text);) {
        std::istringstream words(text);
        int length = 0;
        words >> length;
        for (unsigned byte = 0; words >> std::hex >> byte;) line.send(byte);
        for (int index = 0; index < length; ++index) answers << line.receive() << ' ';
        answers << '\n';
    }
    return 0;
}

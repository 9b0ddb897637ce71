// Prints the words that a PDM microphone hears (boards with the PDM library, such as the Nano 33 BLE Sense).
#include <PDM.h>
#include <$name.h>

static const char *const words[] = ${NAME}_WORDS;
static ${name}_state state;
static int16_t received[512];
static volatile int waiting = 0;

// Samples wait behind those that loop() has not taken yet.
static void receive() {
  const int bytes = PDM.available(), room = (int)sizeof received - 2 * waiting;
  waiting = waiting + PDM.read(received + waiting, bytes < room ? bytes : room) / 2;
}

void setup() {
  Serial.begin(115200);
  ${name}_reset(&state);
  PDM.onReceive(receive);
  PDM.begin(1, ${NAME}_SAMPLE_RATE);
}

void loop() {
  static int16_t samples[512];
  noInterrupts();
  int32_t count = waiting;
  for (int32_t i = 0; i < count; ++i) {
    samples[i] = received[i];
  }
  waiting = 0;
  interrupts();
  const int16_t *next = samples;
  while (count > 0) {
    const ${name}_detection found = ${name}_push(&state, next, count);
    next += found.taken;
    count -= found.taken;
    if (found.word >= 0) {
      Serial.println(words[found.word]);
    }
  }
}

/* Leaks, churn and a bounded cache by operator new and delete, by the clock:
 * leak() keeps 100,000 bytes per second.
 *
 * It says "ready", and from then on does a round per millisecond until its
 * standard input ends. */
#include <chrono>
#include <cstdio>
#include <cstring>
#include <poll.h>

namespace
{

constexpr int CACHED = 5000, CHURNED = 60, CACHED_PER_ROUND = 5;

struct Entry {
	explicit Entry(long serial, Entry *before) : before(before)
	{
		/* As data is: some words are the same for all of a kind, some each
		 * entry's own. */
		std::memset(words, 5, sizeof(words));
		for (int i = 0; i < 6; i += 2)
			words[i] = serial * 2654435761L + i;
	}

	Entry *before;
	long words[11];
	char rest[4];
};

static_assert(sizeof(Entry) == 104, "the rate below is of another size");

long serial;
Entry *cached[CACHED];
Entry *leaked;
char *leaked_text;

} // namespace

__attribute__((noinline)) void churn()
{
	for (int i = 0; i < CHURNED; i++) {
		Entry *entry = new Entry(serial++, nullptr);

		__asm__ volatile("" : : "r"(entry) : "memory");
		delete entry;
	}
}

__attribute__((noinline)) void cache(long number)
{
	for (int i = 0; i < CACHED_PER_ROUND; i++) {
		Entry *&place = cached[(number * CACHED_PER_ROUND + i) % CACHED];

		delete place;
		place = new Entry(serial++, nullptr);
	}
}

/* An object of 104 bytes and an array of 196. */
__attribute__((noinline)) void leak()
{
	char *text = new char[196];

	std::memset(text, 6, 196);
	std::memcpy(text, &leaked_text, sizeof(text));
	std::memcpy(text + 64, &++serial, sizeof(serial));
	leaked_text = text;
	leaked = new Entry(serial++, leaked);
}

int main()
{
	using clock = std::chrono::steady_clock;
	struct pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
	clock::time_point began = clock::now();
	long number = 0;

	std::puts("ready");
	std::fflush(stdout);
	while (poll(&input, 1, 1) == 0) {
		for (long due = (clock::now() - began) / std::chrono::milliseconds(1); number < due; number++) {
			churn();
			cache(number);
			if (number % 3 == 0)
				leak();
		}
	}
	return 0;
}

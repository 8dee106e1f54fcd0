"""A process that opens a recommender, writes to it and says what was acknowledged, until it is killed. See test_durability.

The threads write 1,000 events a second together, as far as the disk lets them.
"""

import sys
import threading
import time

from llmrec_fast import Recommender

EVENTS_A_SECOND = 1000


def main(folder: str, threads: int, compact: bool) -> None:
    recommender = Recommender.open(folder, fsync="always", compact_bytes=20_000 if compact else 1 << 30)
    said = threading.Lock()
    first = sum(user.startswith("k") for user in map(str, recommender.user_ids))

    def write(thread: int) -> None:
        turn, start = 0, time.monotonic()
        while True:
            time.sleep(max(0.0, start + turn * threads / EVENTS_A_SECOND - time.monotonic()))
            # users are numbered so that the reader can tell which events it must find
            user = f"k{first}-{thread}-{turn // 4}"
            recommender.record(user, f"i{turn % 4}", timestamp=turn)
            with said:
                sys.stdout.write(f"{user} i{turn % 4}\n")
                sys.stdout.flush()
            turn += 1

    workers = [threading.Thread(target=write, args=(thread,), daemon=True) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "compact")

"""A process that opens a recommender, writes to it and says what was acknowledged, until it is killed. See test_durability."""

import sys
import threading

from llmrec_fast import Recommender


def main(folder: str, threads: int, compact: bool) -> None:
    recommender = Recommender.open(folder, fsync="always", compact_bytes=20_000 if compact else 1 << 30)
    said = threading.Lock()
    first = sum(user.startswith("k") for user in map(str, recommender.user_ids))

    def write(thread: int) -> None:
        turn = 0
        while True:
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

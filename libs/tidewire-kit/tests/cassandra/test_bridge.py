import asyncio
import threading

from tidewire_kit.cassandra.bridge import LoopBridge


async def test_many_answers_from_another_thread_cost_few_wake_ups() -> None:
    received: list[int] = []
    everything = asyncio.Event()

    def receive(call: int, result: object, error: object) -> None:
        received.append(call)
        if len(received) == 10_000:
            everything.set()

    bridge = LoopBridge(asyncio.get_running_loop(), receive)

    def deliver() -> None:
        for number in range(10_000):
            bridge.succeeded([], number, None)

    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join()  # the loop does not turn meanwhile, so one wake-up is all it takes
    await everything.wait()
    assert received == list(range(10_000))
    assert bridge.wake_ups == 1


async def test_answers_that_arrive_while_others_are_handed_out_are_not_forgotten() -> None:
    received: list[int] = []
    done = asyncio.Event()

    def receive(call: int, result: object, error: object) -> None:
        received.append(call)
        if len(received) == 4 * 5_000:
            done.set()

    bridge = LoopBridge(asyncio.get_running_loop(), receive)

    def deliver(first: int) -> None:
        for number in range(first, first + 5_000):
            bridge.failed(ValueError(), number)

    threads = [threading.Thread(target=deliver, args=(at * 5_000,)) for at in range(4)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(30):
        await done.wait()
    for thread in threads:
        thread.join()
    assert sorted(received) == list(range(4 * 5_000))


def test_an_answer_after_the_end_of_the_loop_harms_nobody() -> None:
    loop = asyncio.new_event_loop()
    bridge = LoopBridge(loop, lambda *_: None)
    loop.close()
    bridge.succeeded([], None, None)

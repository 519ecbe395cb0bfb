from tidewire_kit.owner import PoisonGuard


def test_twenty_of_few_records_are_too_many() -> None:
    guard = PoisonGuard()
    for _ in range(19):
        assert not guard.would_trip()
        guard.failed()
    assert guard.would_trip()


def test_one_percent_is_borne() -> None:
    guard = PoisonGuard()
    guard.passed(10_000)
    for _ in range(99):
        guard.failed()
    assert not guard.would_trip(), "a hundredth of ten thousand is exactly 1 %"
    guard.failed()
    assert guard.would_trip()


def test_old_poison_is_forgotten() -> None:
    guard = PoisonGuard(window=100, share=0.01, least=2)
    guard.failed()
    assert guard.would_trip()
    guard.passed(99)
    assert guard.recent == 1
    guard.passed()
    assert guard.recent == 0
    assert not guard.would_trip()

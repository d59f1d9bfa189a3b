Feature: What a worker may take, and that nothing of it stays
  So that one hungry model costs neither its neighbours nor the box anything, and an operator
  never has to look for processes that were left behind.

  # Limits

  Scenario: A worker over its memory limit is ended and named, and nobody else notices
    Given a server with 2 workers of at most 300 MiB that will take 2 GiB when asked "hog"
    When a request for 400 tokens is streaming
    And a request with the prompt "hog" is sent
    Then the log names the cause "out_of_memory" within 5 seconds
    And the first stream ends whole with 400 tokens
    And its worker has the pid that it had
    And the supervisor has grown by less than 32 MiB

  Scenario: Which means hold the limits is said at the start
    Given a server with 1 worker of at most 300 MiB
    Then the log says by what each limit is held
    And the worker is in a cgroup with a limit of 300 MiB

  Scenario: Where there are no cgroups, memory is watched, and that is said
    Given a server without cgroups with 1 worker of at most 300 MiB that will take 2 GiB when asked "hog"
    Then the log says "memory_only_watched" at its start
    When a request with the prompt "hog" is sent
    Then the log names the cause "out_of_memory" within 5 seconds

  Scenario: A limit that nothing can hold is refused at the start
    When a server without cgroups is started with workers of at most 1 core
    Then it exits with code 78 and says "cpus cannot be held here"

  Scenario: Too few open files for the workers are told at the start
    When a server with 64 workers is started that may open 256 files
    Then it exits with code 78 and says "the limit on open files is 256"

  # Nothing stays

  Scenario: A process that left its worker's session ends with the worker
    Given a server with 1 worker that will stray_child
    When the worker is killed
    Then what the worker had left behind is gone within 1 second
    And no zombie is a child of the server within 2 seconds

  Scenario: Sixteen workers that ignore everything, with strays, do not hold up shutdown
    Given a server with 16 workers that will stray_child
    When the server gets SIGTERM
    Then the server exits with code 0 within 12 seconds
    And nothing that was ever started by it is left
    And no cgroup of it is left
    And the run directory is gone

  Scenario: Strays do not outlive a killed supervisor
    Given a server with 4 workers that will stray_child
    When the server is killed
    Then nothing that was ever started by it is left within 2 seconds
    And no cgroup of it is left

  Scenario: Strays do not outlive a killed supervisor where there are no cgroups
    Given a server without cgroups with 2 workers that will stray_child
    When the server is killed
    Then nothing that was ever started by it is left within 2 seconds

  Scenario: What a supervisor and its warden left, both killed, the next start ends
    Given a server with 2 workers that will stray_child
    When the server is killed together with its warden
    Then its strays are still there
    When the server is started again on the same run directory
    Then the log says that orphans were killed before the first worker was started
    And nothing that was started by the first server is left

  # GPU memory, on a stand-in for NVIDIA's library

  Scenario: A worker that does not fit beside its neighbour is not started, and it is said who holds what
    Given a server with a GPU of 80 GiB and 2 workers of 50 GiB
    Then one of them serves, and the other has failed as "out_of_memory" without having been started
    And its failure says how much of the GPU its neighbour holds
    And a crash report tells the cause "out_of_memory" of a worker that was never started, and its GPU
    And the status says that 50 GiB of the GPU are reserved

  Scenario: The next worker is started when the memory of the last one is back
    Given a server with a GPU of 80 GiB that is 1.5 seconds late and 1 worker of 50 GiB
    When the worker on the GPU is killed
    Then the next one is started no sooner than 1.5 seconds later

  Scenario: Memory that never comes back is told, and nothing is crashed into it
    Given a server with a GPU of 80 GiB that is 600 seconds late and 1 worker of 50 GiB
    When the worker on the GPU is killed
    Then the log says "worker_waits" for its slot, and "vram_not_released" in the end
    And no other worker is started

  Scenario: A GPU at its temperature limit takes no new worker until it has cooled down
    Given a server with a GPU of 95 degrees
    Then its worker waits for the GPU, which is "hot"
    When the GPU has 60 degrees
    Then the server serves within 5 seconds

  Scenario: A driver that hangs holds up neither requests nor the end
    Given a server with a GPU of 80 GiB and 1 worker of 50 GiB
    When every call into the driver hangs
    Then the status says that the GPU is "unknown" within 5 seconds
    And a request is answered while it hangs
    And the server ends with code 0 within 5 seconds of SIGTERM

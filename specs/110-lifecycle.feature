Feature: Workers are started, watched, replaced and stopped (R1, R6, R7, R13, R14)
  So that one crash costs a model some seconds, not an operator a night,
  and nothing stays behind when the server goes.

  Scenario: The server says where it is and what it serves
    Given a server with 1 worker
    Then the log says "serving" with the address, the model and the engine
    And readiness is 200 "ok"
    And the worker is ready, with a pid, a model and beats

  Scenario: The run directory is closed to others, and two servers do not share one
    Given a server with 1 worker
    Then the run directory has mode 700
    When a second server is started on the same run directory
    Then it exits with code 73 and names the pid of the first

  Scenario: A worker that is killed is seen at once and comes back
    Given a server with 1 worker
    When the worker is killed
    Then the crash is logged within 0.3 seconds
    And readiness is 503 "unavailable"
    And a new worker process is started within 1.3 seconds of the kill
    And the server becomes ready again within 10 seconds
    And the worker counts 1 restart

  Scenario: A worker that is stopped is hung, and is replaced
    Given a server with 1 worker and beats every 0.5 seconds
    When the worker is stopped with SIGSTOP
    Then the log says "worker_killed" within 1.6 seconds, because of "no beat"
    And the server becomes ready again within 10 seconds

  Scenario Outline: A worker that hangs while it generates is replaced
    Given a server with 1 worker and beats every 0.5 seconds that will <fault> when asked "please hang"
    When a request with the prompt "please hang" is streaming
    Then the log says "worker_killed" within 3 seconds, because of "no beat"
    And the server becomes ready again within 10 seconds

    Examples:
      | fault         |
      | hang_with_gil |

  Scenario: A worker that never loads is killed
    Given a starting server whose worker will stuck_load and may stall for 1 second
    Then the log says "worker_killed" within 10 seconds, because of "no progress"
    And readiness is 503 "starting"

  Scenario: A worker that talks nonsense is killed, and its slot is filled again
    Given a server with 1 worker and beats every 0.5 seconds that will garbage when asked "please fail"
    When a request with the prompt "please fail" is sent
    Then the log says "worker_killed" within 5 seconds, because of "broke the protocol"
    And the server becomes ready again within 10 seconds

  Scenario: The wait doubles with each failure, then the slot stays failed until a reset
    Given a server with 1 worker
    When the worker is killed, and so are the next 3 as they start
    Then the log says "slot_failed" within 20 seconds, because of "4 failures in a row"
    And the slot waited for about 1, 2 and 4 seconds before the starts
    And the worker is failed
    And the status shows an open breaker for "load_failure"
    When the operator resets the worker
    Then the log says "worker_spawned" within 2 seconds
    And the server becomes ready again within 10 seconds
    And the status shows no breaker

  Scenario: What a restart cannot help is not tried again
    Given a starting server whose worker will out_of_memory at once
    Then the log says "slot_failed" within 10 seconds, because of "does not fit into memory"
    And the worker was started 1 time

  Scenario: An operator's restart replaces the worker once its requests are done
    Given a server with 1 worker
    When a request for 100 tokens is streaming
    And the operator restarts the worker
    Then the stream ends whole with 100 tokens
    And the server becomes ready again within 10 seconds
    And the worker has another pid than before

  Scenario: A stopped worker stays away until it is restarted
    Given a server with 2 workers
    When the operator stops the worker
    Then the worker is stopped
    And readiness is 200 "ok"
    When the operator restarts the worker
    Then the worker is ready

  Scenario: Shutdown with idle workers is quick and leaves nothing behind
    Given a server with 4 workers
    When the server gets SIGTERM
    Then the server exits with code 0 within 2 seconds
    And no worker process is left
    And the run directory is gone

  Scenario: Shutdown lets running streams finish and refuses new requests
    Given a server with 1 worker
    When a request for 300 tokens is streaming
    And the server gets SIGTERM
    Then a new request is refused with 503 "draining"
    And readiness is 503 "draining"
    And the stream ends whole with 300 tokens
    And the server exits with code 0 within 5 seconds

  Scenario: A second signal ends at once
    Given a server with 1 worker
    When a request for 4000 tokens is streaming
    And the server gets SIGTERM
    And the server gets SIGTERM
    Then the server exits with code 0 within 3 seconds
    And the stream ended with an error and "[DONE]"
    And no worker process is left

  Scenario: Workers that ignore everything do not hold up shutdown
    Given a server with 8 workers that will ignore_all
    When the server gets SIGTERM
    Then the server exits with code 0 within 12 seconds
    And no worker process is left
    And the run directory is gone

  Scenario: Nothing outlives a killed supervisor
    Given a server with 4 workers
    When the server is killed
    Then no worker process is left within 2 seconds
    When the server is started again on the same run directory
    Then readiness is 200 "ok"

  Scenario: Workers that ignore everything do not outlive a killed supervisor either
    Given a server with 2 workers that will ignore_all
    When the server is killed
    Then no worker process is left within 2 seconds

  Scenario Outline: A worker that beats but does not advance is found out, and says why
    Given a server with 1 worker and quick limits that will <fault> when asked "please hang"
    When a request with the prompt "please hang" is streaming
    Then the log says "worker_killed" within 12 seconds, because of "<reason>"
    And a crash report tells the cause "hang", 1 open request and the stack of "<function>"
    And no crash report holds "please hang"

    Examples:
      | fault        | reason                  | function |
      | hang_in_step | no engine step          | _hang    |
      | silent_step  | livelock                | step     |

  Scenario: A worker whose call holds the interpreter lock tells its stacks all the same
    Given a server with 1 worker and quick limits that will hang_with_gil when asked "please hang"
    When a request with the prompt "please hang" is streaming
    Then the log says "worker_killed" within 3 seconds, because of "no beat"
    And a crash report tells the cause "hang", 1 open request and the stack of "_hang_with_gil"

  Scenario: A crash leaves a report, and reports outlive the server
    Given a server with 1 worker and quick limits that will crash when asked "please crash"
    When a request with the prompt "please crash" is streaming
    Then the log says "crash_reported" within 5 seconds
    And a crash report tells that it "ended by signal 11", with "Segmentation fault" in its last lines
    When the server is stopped and started again
    Then a crash report tells that it "ended by signal 11", with "Segmentation fault" in its last lines

  Scenario: After a cool-down one worker is tried
    Given a server with 1 worker, no restarts and a cool-down of 1 second
    When the worker is killed
    And the worker that comes after it is killed
    Then the log says "slot_failed" within 5 seconds, because of "failures in a row"
    And the log says "slot_on_trial" within 3 seconds
    And the server becomes ready again within 10 seconds
    And the status shows a half_open breaker for "load_failure"

  Scenario: A server that can never serve ends, if that is wanted
    Given a starting server whose workers will out_of_memory at once, and that is to exit then
    Then the log says "hopeless" within 10 seconds, because of "every slot has failed"
    And the server exits by itself with code 69

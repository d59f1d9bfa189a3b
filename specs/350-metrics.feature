Feature: What a server tells Prometheus is true, and no more than what may be told (R6, R7, R10, R11, R13, R14)
  So that an alert at night means what it says,
  and whoever may look at the figures learns nothing else.

  # The page

  Scenario Outline: Every line can be read in the form that was asked for, whatever a client accepts
    Given a server to be tried
    When a chat is tried with {"max_tokens": 2}
    And the metrics are asked for by a client that accepts "<accepts>"
    Then every line of them reads as <form>, and the content type says so
    And the answer does not hold "canary"

    Examples:
      | accepts                                                                              | form        |
      |                                                                                      | text        |
      | */*                                                                                  | text        |
      | text/html, application/json;q=0.5                                                    | text        |
      | ;;,=,;q=canary, \x22canary                                                           | text        |
      | text/plain;version=canary                                                            | text        |
      | application/openmetrics-text                                                         | OpenMetrics |
      | application/openmetrics-text;version=canary                                          | OpenMetrics |
      | application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=1.0.0;q=0.4      | OpenMetrics |

  Scenario: Once there are keys, a viewer may look, nobody else, and nothing can be asked
    Given a server with keys
    When the metrics are asked for without a key
    Then the answer is 401 "invalid_api_key"
    When a viewer asks to scrape the metrics
    Then the answer has the status 200
    When a viewer asks to scrape the metrics with a query
    Then the answer is 400 "unsupported_parameter"
    And the log tells of the scrape that was refused, and of none that was answered

  Scenario: Nothing of a key, a prompt, an id or an address is told, nor anything that a client made up
    Given a server with keys of its own
    When requests are made with names, keys, prompts and ids that are made up
    And others of that kind are made
    Then nothing of them is told in either form
    And the others have made no sample more

  # Requests

  Scenario Outline: What is counted is what the usage members say
    Given a server to be tried, with the lane <lane>
    When the metrics are noted
    And <count> <path> of <tokens> tokens in <choices> choices are <kind> at once
    Then tokens are counted as their usage says, and their times for each choice
    And rbee_requests_total{outcome="ok"} has grown by <count>

    Examples:
      | lane | count | path        | tokens | choices | kind     |
      | on   | 1     | chats       | 1      | 1       | whole    |
      | on   | 5     | chats       | 20     | 1       | streamed |
      | on   | 3     | completions | 7      | 3       | whole    |
      | off  | 3     | completions | 20     | 4       | streamed |

  Scenario: Requests of local programs count as all others
    Given a server to be tried
    When the metrics are noted
    And a local program streams the prompt "[tokens=20]"
    Then rbee_requests_total{route="/v1/chat/completions",outcome="ok"} has grown by 1
    And rbee_completion_tokens_total{model="synthetic"} has grown by 20

  Scenario: A deadline that passed and a client that hung up are told apart
    Given a server to be tried
    When the metrics are noted
    And a request for 4000 tokens with a timeout of 1 second is sent
    Then rbee_requests_total{model="synthetic",outcome="deadline_exceeded"} has grown by 1
    And rbee_http_requests_total{status="504"} has grown by 1
    When a request for 4000 tokens is streaming
    And the client goes away
    Then rbee_requests_total{model="synthetic",outcome="client_gone"} has grown by 1
    And rbee_requests_total has grown by 2
    And rbee_open_requests is 0

  Scenario: Who waits is told while they wait, and for how long afterwards
    Given a server with 1 worker of batch size 1 and a queue of 1
    When 3 requests for 200 tokens are sent at once
    Then rbee_queued_requests{model="synthetic"} is 1
    And rbee_worker_requests{slot="synthetic-0"} is 1
    And one of them is refused with 429 "queue_full" and a Retry-After
    And rbee_requests_total{outcome="queue_full"} is 1
    And rbee_requests_total{outcome="ok"} is 2
    And rbee_queued_requests{model="synthetic"} is 0
    And rbee_queue_wait_seconds_count{model="synthetic"} is 2
    And rbee_queue_wait_seconds_sum{model="synthetic"} is between 0.5 and 3

  Scenario: Health checks are counted by route and status
    Given a server to be tried
    When the metrics are noted
    And "/health/live" is asked for without a key
    And "/health/ready" is asked for without a key
    And "/health/ready" is asked for without a key
    And "/health/startup" is asked for without a key
    Then rbee_http_requests_total{route="/health/live",status="200"} has grown by 1
    And rbee_http_requests_total{route="/health/ready",status="200"} has grown by 2
    And rbee_http_requests_total{route="/health/startup",status="200"} has grown by 1
    And rbee_http_request_duration_seconds_count{route="/health/ready"} has grown by 2

  Scenario: Who is not let in is counted by the reason
    Given a server with keys of its own
    When the metrics are noted
    And the models are asked for with no key
    And the models are asked for with a key of another scheme
    And the models are asked for with a key that nobody made
    And the models are asked for with another secret for a known id
    And the models are asked for with an expired key
    Then rbee_auth_failures_total{reason="missing"} has grown by 1
    And rbee_auth_failures_total{reason="malformed"} has grown by 1
    And rbee_auth_failures_total{reason="unknown"} has grown by 1
    And rbee_auth_failures_total{reason="wrong"} has grown by 1
    And rbee_auth_failures_total{reason="expired"} has grown by 1
    And rbee_auth_failures_total has grown by 5

  Scenario: Those who scrape disturb no stream
    Given a server with 2 workers
    When 50 requests for 400 tokens are streamed at once
    Then 20 scrapes at once are answered while they run
    And each of the 50 streams is the numbers from 0 to 399
    And rbee_completion_tokens_total{model="synthetic"} is 20000

  # Workers

  Scenario: A worker that is killed is a crash, a restart, and for its client nothing
    Given a server with 2 workers
    When the metrics are noted
    And a request for 300 tokens is streaming
    And the worker that has it is killed
    Then the stream ends whole with 300 tokens
    And rbee_worker_failures_total{cause="crash"} has grown by 1
    And rbee_worker_failures_total has grown by 1
    And rbee_failovers_total{model="synthetic"} has grown by 1
    And rbee_requests_total{model="synthetic",outcome="ok"} has grown by 1
    And rbee_requests_total has grown by 1
    And rbee_prompt_tokens_total has grown by 5
    And rbee_completion_tokens_total has grown by 300
    And rbee_worker_restarts_total has grown by 1
    And rbee_worker_load_seconds_count has grown by 1
    And rbee_workers{state="ready"} is 2

  Scenario: A worker that hangs is told as such, and with which signal it was ended
    Given a server with 1 worker and beats every 0.5 seconds
    When the worker is stopped with SIGSTOP
    Then rbee_worker_failures_total{cause="hang"} is 1
    And rbee_worker_failures_total is 1
    And rbee_worker_kills_total{signal="SIGKILL"} is 1
    And rbee_worker_restarts_total is 1

  Scenario: A breaker that opens is told until it is reset
    Given a server with 1 worker that is not restarted more than once
    Then rbee_worker_breaker{state="closed"} is 1
    When the worker is killed
    And the worker that comes after it is killed
    Then rbee_worker_breaker{state="open"} is 1
    And rbee_worker_breaker{state="closed"} is 0
    And rbee_worker_failures_in_a_row is 2
    And rbee_workers{state="failed"} is 1
    And rbee_worker_up is 0
    And rbee_readiness{state="unavailable"} is 1
    When the operator resets the worker
    Then rbee_workers{state="ready"} is 1
    And rbee_worker_breaker{state="open"} is 0
    And rbee_worker_breaker{state="closed"} is 1
    And rbee_worker_up is 1
    And rbee_readiness{state="ok"} is 1

  Scenario: What does not fit into memory is told by that cause
    Given a starting server whose worker will out_of_memory at once
    Then rbee_worker_failures_total{slot="synthetic-0",cause="out_of_memory"} is 1
    And rbee_worker_failures_total is 1
    And rbee_worker_breaker{state="open"} is 1
    And rbee_worker_restarts_total is 0
    And no metric begins with "rbee_worker_uptime"

  Scenario: Beats, memory and processor time are those of the processes
    Given a server with 1 worker and beats every 0.5 seconds
    Then the age of the last beat stays below 1 second for 2 seconds
    And memory and processor time of the worker are those that the system tells
    And memory and processor time of the supervisor are those that the system tells

  # The box

  Scenario: The audit log's entries are numbered on over restarts, and disks are told as they are
    Given an audited server
    When the metrics are noted
    And 5 requests are answered
    Then rbee_audit_entries_total has grown by 10
    And rbee_audit_state{state="recording"} is 1
    And rbee_audit_lost_total is 0
    And both disks are told as the system tells them
    When the audited server is stopped
    And the audited server is started once more
    Then rbee_audit_entries_total is the number of the last entry

  Scenario: Without a GPU nothing is told of one
    Given a server to be tried
    Then no metric begins with "rbee_gpu"
    And no metric begins with "rbee_worker_vram"

  Scenario: A GPU is told as its driver tells it, and not at all when that hangs
    Given a server with a GPU of 80 GiB and 1 worker of 50 GiB
    Then rbee_gpu_memory_bytes{gpu="0"} is 80 GiB
    And rbee_gpu_memory_free_bytes{gpu="0"} is 30 GiB
    And rbee_gpu_memory_reserved_bytes{gpu="0"} is 50 GiB
    And rbee_worker_vram_bytes{slot="synthetic-0"} is 50 GiB
    And rbee_worker_vram_reserved_bytes{slot="synthetic-0"} is 50 GiB
    And rbee_gpu_temperature_celsius{gpu="0"} is 40
    And rbee_gpu_state{gpu="0",state="ok"} is 1
    When the GPU has 95 degrees
    Then rbee_gpu_temperature_celsius{gpu="0"} is 95
    And rbee_gpu_state{gpu="0",state="hot"} is 1
    When every call into the driver hangs
    Then rbee_gpu_state{gpu="0",state="unknown"} is 1
    And no metric begins with "rbee_gpu_temperature_celsius"

  # Shutdown

  Scenario: A server that drains says so, and can be scraped meanwhile
    Given a server with 1 worker
    Then rbee_readiness{state="ok"} is 1
    And rbee_draining_seconds is 0
    When a request for 600 tokens is streaming
    And the server gets SIGTERM
    Then rbee_readiness{state="draining"} is 1
    And rbee_readiness{state="ok"} is 0
    And rbee_open_requests is 1
    And rbee_draining_seconds grows with the time
    And readiness is 503 "draining"
    And rbee_http_requests_total{route="/health/ready",status="503"} is 1
    And the stream ends whole with 600 tokens
    And the server exits with code 0 within 8 seconds

  Scenario: How a shutdown went is told by the next server, unless there was none
    Given an audited server
    Then no metric begins with "rbee_last_shutdown"
    When the audited server is stopped
    And the audited server is started once more
    Then the last shutdown is told as the log of that server has it
    And rbee_last_shutdown_duration_seconds{part="drain"} is between 0 and 0.5
    And rbee_last_shutdown_cut_requests is 0
    And rbee_last_shutdown_killed_workers is 0
    When the server is killed
    And the server is started again on the same run directory
    Then no metric begins with "rbee_last_shutdown"

  Scenario: Requests that were cut and workers that had to be killed are told afterwards
    Given a server that drains for 0.5 seconds, with 2 workers that ignore everything for 1 second
    When a request for 4000 tokens is streaming
    And the server gets SIGTERM
    Then the server exits with code 0 within 6 seconds
    When the server is started again on the same run directory
    Then the last shutdown is told as the log of that server has it
    And rbee_last_shutdown_duration_seconds{part="drain"} is between 0.4 and 1.5
    And rbee_last_shutdown_duration_seconds{part="workers"} is between 0.9 and 3
    And rbee_last_shutdown_cut_requests is 1
    And rbee_last_shutdown_killed_workers is 2

  Scenario Outline: What a shutdown has left and nobody can read costs a word in the log, and nothing else
    Given what the last shutdown has left is <what>
    And an audited server
    Then the log says "last_shutdown_not_known"
    And no metric begins with "rbee_last_shutdown"
    And a chat is answered
    When the audited server is stopped
    And the audited server is started once more
    Then the last shutdown is told as the log of that server has it

    Examples:
      | what            |
      | half a file     |
      | another's link  |

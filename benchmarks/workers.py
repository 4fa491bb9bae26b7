"""Processes that solve: a task that hangs or kills its process costs that process, and the next task has another."""

import multiprocessing
import signal

PER_CPU_SECOND = 20  # seconds on the wall after which a worker that should use the processor counts as hung


class Worker:
    """A process that serves many tasks, and is replaced when one of them hangs it or kills it.

    ``serve(pipe, options)`` runs there. It sends one message when it is ready. For each task that it receives it
    sends a message after every stage but the last, and then the record, a dict. ``stages`` has the seconds that a
    stage may take; with ``cpu`` they are processor time, and ``serve`` sees to it that SIGPROF ends the process.
    """

    def __init__(self, serve, options, stages, cpu):
        self.serve, self.options, self.stages, self.cpu = serve, options, stages, cpu
        self.process = None

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=self.serve, args=(far, self.options), daemon=True)
        self.process.start()
        far.close()
        return self.pipe.recv()

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def record(self, *task):
        if self.process is None:
            self.start()
        self.pipe.send(task)
        for limit in self.stages:
            out_of_time = {"reason": f"time limit of {limit:g} s"}
            try:
                if not self.pipe.poll(limit * (PER_CPU_SECOND if self.cpu else 1)):
                    self.stop()
                    return out_of_time
                reply = self.pipe.recv()
            except EOFError:
                self.process.join()
                code, self.process = self.process.exitcode, None
                return out_of_time if code == -signal.SIGPROF else {"reason": f"the process died: exit code {code}"}
            if isinstance(reply, dict):
                return reply
        raise RuntimeError("the worker sent no record")

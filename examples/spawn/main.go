// Command spawn executes programs without copying this one's memory: two of
// them with a pipe between, as a shell does for "echo hello | tr a-z A-Z".
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"

	"lwprt/lwp"
)

// spawn starts the program at path with descriptors in and out.
func spawn(in, out *os.File, path string, args ...string) (lwp.Process, error) {
	return lwp.SpawnExec(path, append([]string{path}, args...), lwp.ExecAttr{
		Files: []int{int(in.Fd()), int(out.Fd()), 2},
		Env:   []string{"LC_ALL=C"},
	})
}

func run() error {
	fmt.Print("fork(2) copies the memory of its caller, which execve(2) then throws away. SpawnExec\n" +
		"lets the child borrow the memory (CLONE_VM), and waits until it has executed the\n" +
		"program (CLONE_VFORK).\n\n")
	var pipes [2]struct{ r, w *os.File }
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		pipes[i].r, pipes[i].w = r, w
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()

	echo, err := spawn(null, pipes[0].w, "/bin/echo", "hello from a child")
	if err != nil {
		return err
	}
	tr, err := spawn(pipes[0].r, pipes[1].w, "/usr/bin/tr", "a-z", "A-Z")
	if err != nil {
		return err
	}
	fmt.Printf("process %d is echo, process %d is tr\n", echo.PID(), tr.PID())
	// The children have their own copies; a reader sees the end when all are closed.
	pipes[0].w.Close()
	pipes[1].w.Close()
	text, err := io.ReadAll(pipes[1].r)
	if err != nil {
		return err
	}
	fmt.Printf("the pipe's end says: %s", text)
	for _, p := range []lwp.Process{echo, tr} {
		pid := p.PID()
		state, err := p.Wait()
		if err != nil {
			return err
		}
		fmt.Printf("process %d ended with %v\n", pid, state)
	}

	p, err := lwp.SpawnExec("/bin/sh", []string{"sh", "-c", "kill -TERM $$"}, lwp.ExecAttr{})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("a shell that kills itself: %v\n", state)

	fmt.Print("\nWhat goes wrong in the child comes back as an error, and no child is left:\n")
	for _, c := range []struct {
		path string
		attr lwp.ExecAttr
	}{
		{"/no/such/program", lwp.ExecAttr{}},
		{"/bin/sh", lwp.ExecAttr{Dir: "/no/such/directory"}},
		{"/bin/sh", lwp.ExecAttr{ProcessAttr: lwp.ProcessAttr{Flags: lwp.CloneNewNS | lwp.CloneFS}}},
	} {
		_, err := lwp.SpawnExec(c.path, nil, c.attr)
		fmt.Printf("   %v\n", err)
		if err == nil {
			return errors.New("that should have failed")
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			fmt.Println("This program needs /bin/echo, /bin/sh and /usr/bin/tr.")
		}
		log.Fatal("spawn: ", err)
	}
}

package localpg

import "syscall"

// endWithParent makes the system stop the process, as by Ctrl-C, when its parent dies, however it dies.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGINT }

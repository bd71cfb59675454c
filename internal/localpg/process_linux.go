package localpg

import "syscall"

// endWithParent makes the system interrupt the process when its parent ends or is killed.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGINT }

"""An emulator of the parts of AWS that this project uses. No AWS, no container, no charge.

moto answers the APIs on 127.0.0.1; what SageMaker would run in a container runs here as a process
of this machine, forked from one that has imported the packages. S3 is not part of it: that is a
real server of its own.

Images are built where DOCKER_HOST names an engine that answers; else a build's log says that
nothing was built. Jobs run without their image either way.

What it does not prove: IAM (every caller may do everything, but for refusals that a test asks for),
quotas, that an instance type can be had, that a job's image can be pulled and started.
"""

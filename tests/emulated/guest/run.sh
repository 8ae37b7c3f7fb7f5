# What the emulated machine does: the CPU by itself, quantfx's view of it, and tests.
export PATH=/usr/bin HOME=/root TERM=dumb COLUMNS=120
export CXX=/job/compiler QUANTFX_CACHE=/job/cache OMP_NUM_THREADS=1 PYTHONPATH=@REPOSITORY@
for each in $(busybox --list); do
    [ -e /usr/bin/$each ] || busybox ln -s busybox /usr/bin/$each
done
mkdir -p @REPOSITORY@ /tmp/environment
mount --bind @ENVIRONMENT@ /tmp/environment
mount --bind /job/repository @REPOSITORY@
if [ ! -d @ENVIRONMENT@ ]; then # it is in the repository, and hidden now
    mkdir -p @ENVIRONMENT@
    mount --bind /tmp/environment @ENVIRONMENT@
fi
cd @REPOSITORY@ || exit
grep -m1 "model name" /proc/cpuinfo
/job/cpu
@PYTHON@ -m tests.emulated.seen
@PYTHON@ -m pytest -v --tb=short -p no:cacheprovider -rfEs @ARGUMENTS@

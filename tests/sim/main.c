/* SPDX-License-Identifier: Apache-2.0 */
/* sim [-p] [-v] [-t FOLDER]: reads scenarios, one a line, writes a result for each, one a line.
 * -p lists the parameters of pcmig instead, -v tells every decision of pcmig on the standard error, -t writes its
 * traces to FOLDER. */
#include "run.h"

#include "migration.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void list_params(void)
{
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        const struct pcmig_param_row *row = pcmig_params_row((enum pcmig_param)i);

        printf("%s %lld %lld %lld\n", row->name, (long long)row->def, (long long)row->min, (long long)row->max);
    }
}

int main(int argc, char **argv)
{
    const char *trace = NULL;
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    int option;

    while ((option = getopt(argc, argv, "pvt:")) != -1) {
        if (option == 'p') {
            list_params();
            return 0;
        }
        if (option == 'v')
            sim_verbose = true;
        else if (option == 't')
            trace = optarg;
        else
            return 2;
    }
    while ((length = getline(&line, &size, stdin)) >= 0) {
        struct scenario scenario;
        char err[256];

        if (length > 0 && line[length - 1] == '\n')
            line[length - 1] = '\0';
        scenario_defaults(&scenario);
        if (scenario_parse(&scenario, line, err, sizeof(err)) < 0)
            printf("error=%s\n", err);
        else if (run_scenario(&scenario, trace, stdout) < 0)
            printf("error=out of memory\n");
        fflush(stdout);
    }
    free(line);
    return 0;
}
